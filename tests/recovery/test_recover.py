"""Recovery on the whole: what is refitted, what is kept, and that it helps on unseen samples."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxprune import pipeline
from onnxprune.data.splits import split_samples
from onnxprune.model.diff import field_diff
from onnxprune.model.frontier import float_frontier
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.recovery import lessons
from onnxprune.recovery import recover as stage
from onnxprune.recovery import refit as layers
from onnxprune.recovery.recover import plain, recover, recover_again
from onnxprune.recovery.refit import Refit, refit
from onnxprune.rewrite.prove import prove
from onnxprune.runtime.session import Session
from onnxprune.search import stages
from onnxprune.sensitivity.error import OutputError
from tests import nets

HALF = {"seed": 0, "time_limit": 60.0, "progress": Silent()}


def halved(name, samples=200):
    found = nets.digits(name, samples=samples)
    groups = [g for g in found.coupling.groups if g.kind in ("filter", "neuron")]
    return found, prove(found, [(g, range(0, g.size, 2)) for g in groups])


def accuracy(model, name):
    held = np.load(nets.MODELS / f"{nets.DATA[name]}_heldout.npz")
    output = next(iter(Session(model).run({"input": held["input"]}).values()))
    return (output.argmax(axis=-1) == held["labels"]).mean()


@pytest.mark.parametrize(
    "name", ["digits_resnet", "digits_resnet_bn", "digits_vit", "digits_keras"]
)
def test_accuracy_comes_back(name):
    found, proven = halved(name)
    splits = split_samples(len(found.samples), 0)
    mended = recover(found, proven, splits, **HALF)
    assert mended.after < 0.5 * mended.before
    assert accuracy(mended.model, name) >= accuracy(proven.model, name) + 0.02
    assert accuracy(mended.model, name) >= 0.93
    assert mended.refitted


def test_only_what_is_listed_changes():
    found, proven = halved("digits_resnet_bn")
    splits = split_samples(len(found.samples), 0)
    mended = recover(found, proven, splits, **HALF)
    old = {t.name: t for t in proven.model.graph.initializer}
    new = {t.name: t for t in mended.model.graph.initializer}
    assert new.keys() - old.keys() == set(mended.added)
    changed = {n for n, t in old.items() if field_diff_of(t, new[n])}
    assert changed <= set(mended.refitted)
    onnx.checker.check_model(mended.model)


def field_diff_of(a, b):
    models = []
    for tensor in (a, b):
        model = onnx.ModelProto()
        model.graph.initializer.append(tensor)
        models.append(model)
    return field_diff(*models)


def test_nothing_cut_leaves_nothing_to_mend():
    found = nets.digits("digits_resnet", samples=64)
    proven = prove(found, [])
    mended = recover(found, proven, split_samples(64, 0), **HALF)
    assert mended.refitted == mended.added == ()
    assert mended.model is proven.model


def test_few_samples_are_not_learnt_by_heart():
    found, proven = halved("digits_resnet", samples=7)
    assert recover(found, proven, split_samples(7, 0), **HALF).refitted == ()


def test_a_sweep_that_does_not_help_is_dropped(monkeypatch):
    found, proven = halved("digits_resnet", samples=64)

    def spoil(view, trace, collected, student, *_args, **_choices):
        worse = onnx.ModelProto()
        worse.CopyFrom(student)
        tensor = worse.graph.initializer[0]
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(
                onnx.numpy_helper.to_array(tensor) + np.float32(9.0), tensor.name
            )
        )
        return Refit(worse, (tensor.name,), ())

    monkeypatch.setattr(stage, "refit", spoil)
    mended = recover(found, proven, split_samples(64, 0), **HALF)
    assert mended.model is proven.model
    assert mended.refitted == ()
    assert mended.after == mended.before


def fitted(found, proven, feeds):
    return refit(
        found.view,
        found.traces[0],
        found.coupling.collected,
        proven.model,
        proven.keeps,
        feeds,
        seed=0,
        progress=Silent(),
    )


@pytest.mark.parametrize("name", ["digits_resnet_bn", "digits_vit", "digits_gru"])
def test_one_lesson_per_layer_teaches_the_same(name, monkeypatch):
    found, proven = halved(name, samples=64)
    feeds = list(found.samples.feeds(range(64), 16))
    usual = fitted(found, proven, feeds)
    monkeypatch.setattr(lessons, "_ROOM", 1)
    made = fitted(found, proven, feeds)
    assert made.refitted == usual.refitted
    for one, other in zip(made.model.graph.initializer, usual.model.graph.initializer, strict=True):
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in (one, other)]
        np.testing.assert_allclose(*arrays, rtol=1e-2, atol=1e-3)  # sums are ordered otherwise


def test_samples_that_make_much_are_fewer_and_go_one_by_one(monkeypatch):
    found = nets.digits("digits_resnet", samples=200)
    assert [len(f["input"]) for f in stage.fitting(found, np.arange(100), 0)] == [25] * 4
    monkeypatch.setattr(stage, "_KEPT", 2 * 40 * max(found.activations))
    monkeypatch.setattr(stage, "_ROOM", 1)
    assert [len(f["input"]) for f in stage.fitting(found, np.arange(100), 0)] == [1] * 40


def test_the_student_is_not_touched():
    found, proven = halved("digits_resnet", samples=64)
    before = proven.model.SerializeToString()
    feeds = list(found.samples.feeds(range(64), 16))
    made = fitted(found, proven, feeds)
    assert proven.model.SerializeToString() == before
    assert made.refitted
    assert plain(proven).model is proven.model


def test_recovery_can_be_switched_off(tmp_path, monkeypatch, untimed):
    monkeypatch.setattr(stages, "recover", None)  # calling it would raise
    options = Options(
        data=nets.MODELS / "digits_images.npz", macs=0.7, samples=32, time_limit=5.0, recover=False
    )
    report = pipeline.run(nets.MODELS / "digits_resnet.onnx", tmp_path / "o.onnx", options)
    assert report.refitted == report.added == ()
    assert report.ratios.macs <= 0.7


def test_the_selection_samples_are_fitted_on_once_the_way_is_chosen():
    found, proven = halved("digits_resnet_bn", samples=48)
    splits = split_samples(48, 0)
    chosen = recover(found, proven, splits, **HALF)
    again = recover_again(found, proven, splits, chosen, seed=0, progress=Silent())
    assert (again.before, again.after, again.way) == (chosen.before, chosen.after, chosen.way)
    assert again.refitted == chosen.refitted
    unseen = [next(iter(found.samples.feeds(splits.certify, 99)))]
    judge = OutputError(found.view, float_frontier(found.view, found.traces[0]), unseen)
    assert judge.error(again.model, proven.keeps) < judge.error(chosen.model, proven.keeps)


def test_what_was_not_refitted_is_not_refitted_again():
    found, proven = halved("digits_resnet", samples=7)
    splits = split_samples(7, 0)
    chosen = recover(found, proven, splits, **HALF)
    assert recover_again(found, proven, splits, chosen, seed=0, progress=Silent()) is chosen


def test_the_certifying_samples_stay_unseen(monkeypatch):
    found, proven = halved("digits_mlp", samples=64)
    splits = split_samples(64, 0)
    given, real = [], found.samples.feeds

    class Spy:
        def feeds(self, indices, size):
            given.append(np.asarray(indices))
            return real(indices, size)

    spied = replace(found, samples=Spy())
    chosen = recover(spied, proven, splits, **HALF)
    recover_again(spied, proven, splits, chosen, seed=0, progress=Silent())
    seen = np.concatenate(given)
    assert set(splits.select) <= set(seen)
    assert not set(splits.certify) & set(seen)


@pytest.mark.parametrize("why", ["shared", "wide"])
def test_a_layer_that_is_not_solved_for_is_led_to_the_original_statistics(monkeypatch, why):
    """Its outputs are shifted; scaled too, unless another layer reads the same weight."""
    if why == "wide":
        monkeypatch.setattr(layers, "_WIDEST", 0)
    else:
        monkeypatch.setattr(layers.Student, "owns", lambda self, edge: edge.slot != 1)
    found, proven = halved("digits_resnet_bn")
    splits = split_samples(len(found.samples), 0)
    mended = recover(found, proven, splits, **HALF)
    assert mended.after < 0.9 * mended.before
    weights = {n.input[1] for n in proven.model.graph.node if n.op_type == "Conv"}
    assert bool(weights & {*mended.refitted}) == (why == "wide")
    assert mended.added


def test_statistics_that_are_right_stay(monkeypatch):
    monkeypatch.setattr(layers, "_WIDEST", 0)
    found = nets.digits("digits_resnet", samples=64)
    feeds = list(found.samples.feeds(range(64), 16))
    done = refit(
        found.view,
        found.traces[0],
        found.coupling.collected,
        found.view.model,
        {},
        feeds,
        seed=0,
        progress=Silent(),
    )
    assert done.refitted == done.added == ()
