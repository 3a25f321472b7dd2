"""Turned heads in a cut model: proven, worth it, repeated from the plan, never without cause."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import pipeline
from onnxprune.data.splits import split_samples
from onnxprune.layers.readers import dense_sites
from onnxprune.model.frontier import float_frontier
from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.plan import Plan, load_plan
from onnxprune.progress import Silent
from onnxprune.recovery import heads as stage
from onnxprune.recovery.heads import proven, proven_heads, turn_heads
from onnxprune.recovery.recover import recover
from onnxprune.recovery.turn import turned
from onnxprune.rewrite.prove import prove
from onnxprune.search import stages
from onnxprune.sensitivity.error import OutputError
from tests import nets
from tests.clock import stop
from tests.layers import test_attention as attention

HALF = {"seed": 0, "time_limit": 60.0, "progress": Silent()}


def halved(name="digits_vit", samples=128):
    found = nets.digits(name, samples=samples)
    groups = [g for g in found.coupling.groups if g.kind == "head_dim"]
    cut = prove(found, [(g, range(g.size // 2)) for g in groups])
    return found, cut, split_samples(len(found.samples), 0)


def heads_of(found, cut, splits):
    feeds = list(found.samples.feeds(splits.fit, 32))
    return proven_heads(found, {axis.value for axis in cut.keeps}, feeds, seed=0)


def test_heads_of_large_models_are_looked_at_on_fewer_samples(monkeypatch):
    found, cut, splits = halved()
    monkeypatch.setattr(stage, "turned_heads", lambda *given, **_: seen.append(given[3]) or [])
    seen = []
    heads_of(found, cut, splits)
    monkeypatch.setattr(stage, "_WORK", 1.0)
    heads_of(found, cut, splits)
    assert [sum(len(feed["input"]) for feed in feeds) for feeds in seen] == [64, 32]


def test_half_of_the_dims_of_each_head_cost_little():
    found, cut, splits = halved()
    with_heads = recover(found, cut, splits, **HALF)
    assert with_heads.way.turned
    assert with_heads.after < 0.02 * with_heads.before
    names = {*with_heads.refitted, *with_heads.added}
    assert with_heads.rotated
    assert set(with_heads.rotated) <= names


def test_before_any_refit_turned_dims_are_the_better_ones():
    found, cut, splits = halved()
    turn = turn_heads(found, heads_of(found, cut, splits), cut.keeps)
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    model = turned(cut.model, found.view, sites, cut.keeps, [turn]).model
    outputs = float_frontier(found.view, found.traces[0])
    judge = OutputError(found.view, outputs, list(found.samples.feeds(splits.select, 32)))
    assert judge.error(model, cut.keeps) < 0.1 * judge.error(cut.model, cut.keeps)


def test_a_model_that_is_refitted_better_as_it_is_stays_so(monkeypatch):
    """Bases that are proven but bad: the last dims of each head are kept, not the first."""
    found, cut, splits = halved()
    right = stage.turned_heads

    def back(head):
        return replace(head, ours=head.ours[::-1], theirs=head.theirs[::-1])

    def worst(*given, **more):
        found = right(*given, **more)
        return [replace(one, heads=tuple(map(back, one.heads))) for one in found]

    monkeypatch.setattr(stage, "turned_heads", worst)
    kept = recover(found, cut, splits, **HALF)
    assert not kept.way.turned
    assert kept.rotated == ()


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_tampered_weight_is_no_proof(side):
    found, cut, splits = halved()
    heads = heads_of(found, cut, splits)
    assert len(heads) == 6
    assert proven(found, heads)
    for number in (0, 1):
        one = heads[number]
        wrong = getattr(one.heads[0], side).copy()
        wrong[0, 0] += 0.1 * np.abs(wrong).max()
        changed = (replace(one.heads[0], **{side: wrong}), *one.heads[1:])
        tampered = replace(one, heads=changed)
        assert not proven(found, [tampered])
        assert not proven(found, [*heads[:number], tampered, *heads[number + 1 :]])


def test_what_is_not_proven_is_not_turned(monkeypatch):
    found, cut, splits = halved()
    right = stage.find_pairs

    def wrong(*given):
        first, *others = right(*given)
        return [replace(first, theirs=np.roll(first.theirs, 1, axis=0)), *others]

    monkeypatch.setattr(stage, "find_pairs", wrong)
    assert len(heads_of(found, cut, splits)) == 5


def test_heads_that_lose_nothing_keep_their_basis():
    found, cut, splits = halved()
    heads = heads_of(found, cut, splits)
    (first, *_) = [g for g in found.coupling.groups if g.kind == "head_dim"]
    only = prove(found, [(first, range(4))])
    turn = turn_heads(found, heads, only.keeps)
    bases = [turn.made[node] for node in sorted(turn.made)]
    assert bases[0].shape == (144, 192)
    for basis in bases[1:]:
        np.testing.assert_array_equal(basis, np.eye(192))


def model_of(written, folder, samples=160):
    """Write a network whose heads have two dims that matter of four, and samples for it."""
    net = nets.Net(4)
    hidden = net.op("Tanh", net.linear(written(net), 12, 12))
    model = net.model({"x": ("N", 5, 12)}, net.linear(hidden, 12, 3))
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.dims[1] % 12 == 0:
            blocks = np.split(numpy_helper.to_array(tensor), tensor.dims[1] // 4, axis=1)
            mixed = [b[:, :2] @ net.rng.standard_normal((2, 4)) for b in blocks]
            array = np.concatenate(mixed, axis=1).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    source, data = folder / "in.onnx", folder / "x.npz"
    onnx.save(model, source)
    np.savez(data, x=np.random.default_rng(0).standard_normal((samples, 5, 12), np.float32))
    return source, Options(data=data, macs=0.75, branches=False, multiple_of=1)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    source, options = model_of(attention.packed, folder)
    with pytest.MonkeyPatch.context() as patch:
        stop(patch)
        pipeline.run(source, folder / "out.onnx", options, save_plan=folder / "plan.json")
    return folder


def test_a_plan_is_repeated_to_the_byte_and_verified(pruned, untimed):
    source, target, plan = (pruned / name for name in ("in.onnx", "out.onnx", "plan.json"))
    assert load_plan(plan, load(source)).rotated
    pipeline.apply(source, pruned / "again.onnx", plan, Options(data=pruned / "x.npz"))
    assert target.read_bytes() == (pruned / "again.onnx").read_bytes()
    assert pipeline.verify(source, target, plan, Options()).ok


def test_verify_proves_that_heads_may_be_turned(pruned, monkeypatch):
    source, target = pruned / "in.onnx", pruned / "out.onnx"
    plan = load_plan(pruned / "plan.json", load(source))
    claimed = Plan({**plan.content, "rotated": [*plan.rotated, "nothing"]})
    found = pipeline.verify(source, target, claimed, Options())
    assert not found.ok
    assert [text.split(":")[0] for text in found.differences] == ["nothing"]
    monkeypatch.setattr(stage, "proven", lambda *_: False)
    assert not pipeline.verify(source, target, plan, Options()).ok


def test_without_a_refit_nothing_is_turned():
    found, cut, splits = halved()
    done = stages.repaired(found, cut, splits, Options(recover=False), Silent())
    assert done.rotated == ()
    assert done.model == cut.model
