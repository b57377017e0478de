"""All that touches devices, meshes, other processes, and the private names of JAX."""
