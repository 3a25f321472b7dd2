"""Layers as least-squares problems: what they read, row by row, and what they should give."""
