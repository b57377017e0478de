"""Planning: pure functions from specs, a topology and options to a plan."""
