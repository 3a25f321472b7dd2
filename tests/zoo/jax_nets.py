"""Flax networks by jax2onnx; needs jax2onnx and flax, which bring jax (an environment of its own).

python tests/zoo/jax_nets.py [FOLDER] [--only NAME]
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax2onnx import to_onnx
from saving import Exported, Job, normal, run

LABELS = 10


class Cnn(nnx.Module):
    """Channels last, with a residual and strided convolutions."""

    def __init__(self, r: nnx.Rngs):
        self.a, self.b = nnx.Conv(3, 16, (3, 3), rngs=r), nnx.Conv(16, 16, (3, 3), rngs=r)
        self.norm = nnx.BatchNorm(16, use_running_average=True, rngs=r)
        self.c = nnx.Conv(16, 24, (3, 3), strides=(2, 2), rngs=r)
        self.out = nnx.Linear(24, LABELS, rngs=r)

    def __call__(self, x):
        x = nnx.relu(self.a(x))
        x = nnx.relu(self.norm(self.b(x)) + x)
        return self.out(jnp.mean(nnx.relu(self.c(x)), axis=(1, 2)))


class Depthwise(nnx.Module):
    def __init__(self, r: nnx.Rngs):
        self.a, self.d = (
            nnx.Conv(3, 24, (3, 3), rngs=r),
            nnx.Conv(24, 24, (3, 3), feature_group_count=24, rngs=r),
        )
        self.p, self.out = nnx.Conv(24, 16, (1, 1), rngs=r), nnx.Linear(16 * 16, LABELS, rngs=r)

    def __call__(self, x):
        x = nnx.silu(self.p(nnx.silu(self.d(nnx.silu(self.a(x))))))
        x = nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        return self.out(x.reshape(x.shape[0], -1))


class Mlp(nnx.Module):
    def __init__(self, r: nnx.Rngs):
        self.a, self.b = nnx.Linear(20, 48, rngs=r), nnx.Linear(48, 32, rngs=r)
        self.norm, self.out = nnx.LayerNorm(32, rngs=r), nnx.Linear(32, LABELS, rngs=r)

    def __call__(self, x):
        return self.out(self.norm(nnx.gelu(self.b(nnx.relu(self.a(x))))))


class Transformer(nnx.Module):
    """One pre-norm block with Flax's own attention."""

    def __init__(self, r: nnx.Rngs):
        self.enter, self.norm1 = nnx.Linear(12, 32, rngs=r), nnx.LayerNorm(32, rngs=r)
        self.attention = nnx.MultiHeadAttention(4, 32, decode=False, rngs=r)
        self.norm2, self.up = nnx.LayerNorm(32, rngs=r), nnx.Linear(32, 64, rngs=r)
        self.down, self.out = nnx.Linear(64, 32, rngs=r), nnx.Linear(32, LABELS, rngs=r)

    def __call__(self, x):
        x = self.enter(x)
        x = x + self.attention(self.norm1(x))
        x = x + self.down(nnx.gelu(self.up(self.norm2(x))))
        return self.out(jnp.mean(x, axis=1))


class Gated(nnx.Module):
    """RMS norm, SwiGLU, and heads from einsum."""

    def __init__(self, r: nnx.Rngs):
        self.enter, self.norm = nnx.Linear(12, 32, rngs=r), nnx.RMSNorm(32, rngs=r)
        self.q, self.k, self.v = (nnx.Linear(32, 32, rngs=r) for _ in "qkv")
        self.o = nnx.Linear(32, 32, rngs=r)
        self.gate, self.up = nnx.Linear(32, 48, rngs=r), nnx.Linear(32, 48, rngs=r)
        self.down, self.out = nnx.Linear(48, 32, rngs=r), nnx.Linear(32, LABELS, rngs=r)

    def __call__(self, x):
        x = self.enter(x)
        y = self.norm(x)
        n, t, c = x.shape
        q, k, v = (f(y).reshape(n, t, 4, c // 4) for f in (self.q, self.k, self.v))
        weights = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", q, k) / (c // 4) ** 0.5)
        x = x + self.o(jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, t, c))
        return self.out(x + self.down(nnx.silu(self.gate(x)) * self.up(x)))


class Mixer(nnx.Module):
    """Tokens and channels mixed in turn."""

    def __init__(self, r: nnx.Rngs):
        self.enter, self.norm1 = nnx.Linear(12, 24, rngs=r), nnx.LayerNorm(24, rngs=r)
        self.t1, self.t2 = nnx.Linear(8, 16, rngs=r), nnx.Linear(16, 8, rngs=r)
        self.norm2, self.c1 = nnx.LayerNorm(24, rngs=r), nnx.Linear(24, 48, rngs=r)
        self.c2, self.out = nnx.Linear(48, 24, rngs=r), nnx.Linear(24, LABELS, rngs=r)

    def __call__(self, x):
        x = self.enter(x)
        y = jnp.swapaxes(self.norm1(x), 1, 2)
        x = x + jnp.swapaxes(self.t2(nnx.gelu(self.t1(y))), 1, 2)
        x = x + self.c2(nnx.gelu(self.c1(self.norm2(x))))
        return self.out(jnp.max(x, axis=1))


class Unet(nnx.Module):
    def __init__(self, r: nnx.Rngs):
        self.a, self.b = nnx.Conv(3, 12, (3, 3), rngs=r), nnx.Conv(12, 24, (3, 3), rngs=r)
        self.up = nnx.ConvTranspose(24, 12, (2, 2), strides=(2, 2), rngs=r)
        self.c, self.out = nnx.Conv(24, 16, (3, 3), rngs=r), nnx.Conv(16, 3, (1, 1), rngs=r)

    def __call__(self, x):
        a = nnx.relu(self.a(x))
        b = nnx.relu(self.b(nnx.max_pool(a, window_shape=(2, 2), strides=(2, 2))))
        return self.out(nnx.relu(self.c(jnp.concatenate([self.up(b), a], axis=-1))))


IMAGE, STEPS = (8, 8, 3), (8, 12)
NETS: dict[str, tuple[Callable[[nnx.Rngs], nnx.Module], tuple[int, ...]]] = {
    "j_cnn": (Cnn, IMAGE),
    "j_depthwise": (Depthwise, IMAGE),
    "j_mlp": (Mlp, (20,)),
    "j_transformer": (Transformer, STEPS),
    "j_gated": (Gated, STEPS),
    "j_mixer": (Mixer, STEPS),
    "j_unet": (Unet, IMAGE),
}


def _randomise(module: nnx.Module) -> None:
    """Noise on every number: fresh biases are zeros and hide errors."""
    rng = np.random.default_rng(0)
    state = nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat))
    nnx.update(
        module, jax.tree.map(lambda a: a + np.abs(rng.normal(0, 0.1, a.shape)).astype("f4"), state)
    )


def export(name: str, build: Callable[[nnx.Rngs], nnx.Module], shape: tuple[int, ...]) -> Exported:
    module = build(nnx.Rngs(0))
    _randomise(module)
    data = normal(name, 2, *shape)
    expected = [np.asarray(module(data))]
    model = to_onnx(module, [("B", *shape)], model_name=name, opset=21)
    return Exported(model, {model.graph.input[0].name: data}, expected)


def every() -> Iterator[Job]:
    for name, (build, shape) in NETS.items():
        yield name, "jax", partial(export, name, build, shape)


if __name__ == "__main__":
    run(every(), __doc__)
