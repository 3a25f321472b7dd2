"""The smallest candidate that keeps what was promised, or a reason why there is none."""
