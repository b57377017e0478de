"""A record of what shardinit does, made before a change of its structure and compared after it."""
