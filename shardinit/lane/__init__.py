"""The lane program: traced, cut into pieces, keys as rows of tables, and what each piece is and needs."""
