"""How long models take: measured in pairs, and predicted from a table of their operators."""
