"""The lane program as data: equations, keys as rows, pieces, and what each piece needs."""
