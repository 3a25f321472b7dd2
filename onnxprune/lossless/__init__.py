"""Channels that can go for free: they never vary, or nothing reads them."""
