"""Calibration inputs: what a model wants to be fed; samples from files, code or chance."""
