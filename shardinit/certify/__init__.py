"""Certificates: a plan compiled for its devices by their own compiler, without the devices."""
