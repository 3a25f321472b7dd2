"""Make networks of fixed widths and depths small: they couple as before, and check faster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

from torch import nn


@contextmanager
def narrowed(divisor: int) -> Iterator[None]:
    """Divide the widths of every layer that is built within, where they can be divided."""
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    before = {kind: kind.__init__ for kind in kinds}
    try:
        for kind in kinds:
            kind.__init__ = _divided(kind.__init__, divisor, 2 if kind in kinds[:2] else 1)
        yield
    finally:
        for kind, init in before.items():
            kind.__init__ = init


def _divided(init: Callable[..., None], divisor: int, widths: int) -> Callable[..., None]:
    """A constructor whose first arguments, and the groups of a depthwise convolution, shrink."""

    def divide(width: object) -> object:
        return width // divisor if isinstance(width, int) and width % divisor == 0 else width

    @wraps(init)
    def shrunk(module: nn.Module, *given: object, **named: object) -> None:
        if given and named.get("groups") == given[0]:
            named["groups"] = divide(given[0])
        init(module, *map(divide, given[:widths]), *given[widths:], **named)

    return shrunk


def shorten(module: nn.Module, keep: int) -> None:
    """Keep ``keep`` of the blocks of equal kind and shapes that follow one another."""
    for parent in list(module.modules()):
        if isinstance(parent, nn.Sequential | nn.ModuleList):
            looks = [(type(c), [tuple(p.shape) for p in c.parameters()]) for c in parent]
            for index in range(len(looks) - 1, keep - 1, -1):
                same = all(look == looks[index] for look in looks[index - keep : index])
                if same and looks[index][1]:
                    del parent[index]
