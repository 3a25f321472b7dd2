"""Whole residual branches: which there are, and the model without some of them."""
