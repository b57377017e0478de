"""Execution: compiled pieces run, states written back, a receipt."""
