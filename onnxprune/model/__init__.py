"""The user's model: loading, looking at it, pricing it, writing it."""
