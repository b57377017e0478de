"""Processes: how they find each other, start, are watched and end."""
