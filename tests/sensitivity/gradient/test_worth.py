"""What an error of a layer's output is worth, against small errors put there."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.layers.readers import collect_readers
from onnxprune.layers.recurrent import Sum
from onnxprune.model.frontier import float_frontier
from onnxprune.runtime.session import Session
from onnxprune.sensitivity.gradient.worth import worth_of
from onnxprune.sensitivity.output import OutputChange
from onnxprune.sensitivity.weighed import weighed_readers
from tests import nets
from tests.recovery.test_trajectory import KINDS, copied

INPUTS, SAMPLES, STEP = 5, 24, 3e-3


def looked_at(kind, tmp_path, steps):
    found = nets.look(copied(kind, steps), tmp_path)
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.standard_normal((SAMPLES, steps, INPUTS)).astype(np.float32)}]
    return found, feeds, float_frontier(found.view, found.traces[0])


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_small_errors_do(kind, tmp_path):
    """With one step, an error of the biases is one of the sums."""
    found, feeds, outputs = looked_at(kind, tmp_path, 1)
    groups, trace = found.coupling.groups, found.traces[0]
    readers = collect_readers(found.view, trace, found.coupling, groups, feeds * 3, seed=0)
    sites = [reader.site for (group,) in [groups] for reader in readers[group.name]]
    sums = [site for site in sites if isinstance(site, Sum)]
    assert sums
    worth = worth_of(
        found.view, trace, found.coupling, groups, sites, feeds, outputs=outputs, seed=0
    )
    for number, site in enumerate(sums):
        key = next(k for k in worth if k == (site.node.index, site.direction, site.part))
        for output in (0, len(worth[key]) - 1):
            wanted = moved(found, feeds, outputs, site, output)
            assert worth[key][output] == pytest.approx(wanted, rel=0.03, abs=1e-9), number


def moved(found, feeds, outputs, site, output):
    """Return the squared change of the outputs per squared shift of one sum's bias."""
    model = onnx.ModelProto()
    model.CopyFrom(found.view.model)
    name = site.node.inputs[3]
    clean = [Session(model).run(feed, outputs) for feed in feeds]
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    biases = numpy_helper.to_array(tensor).copy()
    halves = biases.reshape(len(biases), 2, -1)
    units = found.coupling.groups[0].size // len(biases)
    at = site.part.first * units + output
    halves[site.direction, 0 if site.part.reads else 1, at] += STEP
    tensor.CopyFrom(numpy_helper.from_array(biases, name))
    change = OutputChange(clean)
    after = [Session(model).run(feed, outputs) for feed in feeds]
    vectors = [change.vector(n, found) for n, found in enumerate(after)]
    return float(sum((v.astype(np.float64) ** 2).sum() for v in vectors)) / STEP**2


def test_only_groups_of_recurrent_readers_are_weighed_so(tmp_path):
    found = nets.digits("digits_mlp", samples=200)
    feeds = list(found.samples.feeds(range(200), 50))
    outputs = float_frontier(found.view, found.traces[0])
    given = (found.view, found.traces[0], found.coupling, found.coupling.groups, feeds)
    plain = collect_readers(*given, seed=0)
    weighed = weighed_readers(*given, outputs=outputs, seed=0)
    assert weighed.keys() == plain.keys()
    assert plain
    for name, readers in weighed.items():
        for reader, other in zip(readers, plain[name], strict=True):
            np.testing.assert_array_equal(reader.worth, other.worth)


def test_without_a_derivative_all_readers_weigh_by_their_variance(tmp_path):
    model = copied("rnn", 4)
    layer = next(n for n in model.graph.node if n.op_type == "RNN")
    layer.attribute.append(onnx.helper.make_attribute("activations", ["Relu"]))
    found = nets.look(model, tmp_path)
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.standard_normal((SAMPLES, 4, INPUTS)).astype(np.float32)}]
    outputs = float_frontier(found.view, found.traces[0])
    given = (found.view, found.traces[0], found.coupling, found.coupling.groups, feeds)
    ((readers),) = weighed_readers(*given, outputs=outputs, seed=0).values()
    assert len(readers) == 2
    assert all(np.ptp(reader.worth) == 0 for reader in readers)
