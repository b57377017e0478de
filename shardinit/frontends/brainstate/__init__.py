"""The front end of brainstate: from a module to a lane program, and back into its states."""
