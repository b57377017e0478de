"""All text, tables and pages, made from specs alone."""
