"""What every channel is worth: the change of the model's output when it goes."""
