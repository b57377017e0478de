"""Execution: compiled pieces run, arrays come out; no module is touched."""
