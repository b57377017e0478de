"""Front ends: from a target to a lane program, and a sink that takes the arrays."""
