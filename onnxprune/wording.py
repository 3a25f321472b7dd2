"""Words that several messages share."""

__all__ = ["counted"]


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``1 group``, ``2,000 groups``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
