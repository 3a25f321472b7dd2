"""What an Einsum equation says, written out: every axis of every term has a letter."""

from collections.abc import Sequence

__all__ = ["einsum_terms"]

_FIRST = 0x3B1  # Greek letters stand for the axes of "...": equations have Latin ones


def einsum_terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Spell out an equation.

    Parameters
    ----------
    equation : str
        With or without an output term; ``...`` broadcasts from the right.
    ranks : sequence of int
        Of the operands.

    Returns
    -------
    terms : list of str
        One letter per axis, per operand.
    output : str
        One letter per axis.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    spread = [rank - len(p.replace("...", "")) for p, rank in zip(parts, ranks, strict=True)]
    most = max((n for p, n in zip(parts, spread, strict=True) if "..." in p), default=0)
    dots = "".join(chr(_FIRST + n) for n in range(most))
    terms = [p.replace("...", dots[most - n :]) for p, n in zip(parts, spread, strict=True)]
    if not arrow:
        letters = "".join(parts).replace(".", "")
        right = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return terms, right.replace("...", dots)
