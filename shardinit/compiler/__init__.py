"""The initialization compiler: from a lane program and a plan to compiled pieces."""
