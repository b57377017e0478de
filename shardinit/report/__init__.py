"""What a user watches while it runs."""
