"""One report value, and the ways it is rendered."""
