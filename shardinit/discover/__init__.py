"""Discovery: from a module to a lane program. The only package that knows how brainstate traces."""
