"""Accuracy without retraining: the rest of a layer takes over what the removed channels did."""
