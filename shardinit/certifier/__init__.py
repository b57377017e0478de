"""Certificates: the programs of a plan, compiled for a target by its own compiler."""
