"""What was lost: metrics, labels, the drop and its certificate."""
