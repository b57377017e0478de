"""Processes: how they find each other, start, are watched and end. Importing it imports no JAX."""

from shardinit.launch.detect import detect
from shardinit.launch.join import initialize
from shardinit.launch.spec import LaunchSpec

__all__ = ["LaunchSpec", "detect", "initialize"]
