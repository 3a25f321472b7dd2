"""The cut: slice weights, mend what counts them, prove the result."""
