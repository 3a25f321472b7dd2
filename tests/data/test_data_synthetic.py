import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.data.specs import InputSpec, input_specs
from onnxprune.data.synthetic import random_feed, synthetic_samples
from onnxprune.data.tables import table_rows
from onnxprune.errors import InputError

EMPTY = helper.make_model(helper.make_graph([], "g", [], []))


def spec(name, *shape, dtype=np.float32):
    return InputSpec(name, np.dtype(dtype), shape)


def feed(name, *shape, dtype=np.float32, model=EMPTY, seed=0):
    rng = np.random.default_rng(seed)
    return random_feed(model, [spec(name, *shape, dtype=dtype)], {name: shape}, rng)[name]


def lookup(*nodes, tables=(), inputs=("ids",)):
    """Return a model of integer inputs, nodes and constant tables of shape (rows, 4)."""
    graph = helper.make_graph(
        [*nodes],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"]) for n in inputs],
        [],
        initializer=[
            onnx.numpy_helper.from_array(np.zeros((rows, 4), np.float32), name)
            for name, rows in tables
        ],
    )
    return helper.make_model(graph)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def rows(model):
    return table_rows(model, input_specs(model))


class TestValues:
    @pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
    def test_floats_are_normal(self, dtype):
        values = feed("x", 200, 50, dtype=dtype)
        assert values.dtype == dtype
        assert abs(float(values.astype(float).mean())) < 0.05
        assert abs(float(values.astype(float).std()) - 1) < 0.05

    @pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
    def test_masks_are_ones(self, dtype):
        values = feed("encoder_attention_MASK", 3, 4, dtype=dtype)
        assert values.dtype == dtype
        assert values.all()

    def test_padding_masks_of_bools_pad_nothing(self):
        assert not feed("key_padding_mask", 3, 4, dtype=np.bool_).any()

    def test_bools_are_random(self):
        values = feed("flag", 100, dtype=np.bool_)
        assert values.any()
        assert not values.all()

    @pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8])
    def test_other_integers_are_0_or_1_and_begin_with_1(self, dtype):
        for seed in range(5):
            values = feed("k", 100, dtype=dtype, seed=seed)
            assert values.dtype == dtype
            assert set(values.tolist()) == {0, 1}
            assert values[0] == 1

    def test_uint8_are_pixels(self):
        values = feed("image", 1, 50, 50, 3, dtype=np.uint8)
        assert values.min() < 5
        assert values.max() > 250

    def test_scalars_and_empty_arrays(self):
        assert feed("t").shape == ()
        assert feed("k", dtype=np.int64).item() == 1
        assert feed("k", 0, 3, dtype=np.int64).shape == (0, 3)

    def test_strings_cannot_be_made(self):
        with pytest.raises(InputError, match=r"input 's' \(string \[2\]\); give --data"):
            feed("s", 2, dtype=object)


class TestTableRows:
    def test_gather_over_an_initializer(self):
        assert rows(lookup(node("Gather", "w ids", "e"), tables=[("w", 30)])) == {"ids": 30}

    def test_axis_of_the_rows(self):
        assert rows(lookup(node("Gather", "w ids", "e", axis=-1), tables=[("w", 30)])) == {"ids": 4}

    def test_gather_over_a_constant_node_after_casts_and_movement(self):
        table = onnx.numpy_helper.from_array(np.zeros((20, 4), np.float32))
        model = lookup(
            node("Constant", "", "c", value=table),
            node("Identity", "c", "w"),
            node("Cast", "ids", "a", to=TensorProto.INT32),
            node("Reshape", "a shape", "b"),
            node("Concat", "other b", "d", axis=0),
            node("Gather", "w d", "e"),
        )
        assert rows(model) == {"ids": 20}

    def test_a_quantized_table(self):
        model = lookup(
            node("DequantizeLinear", "q s", "w"), node("Gather", "w ids", "e"), tables=[("q", 12)]
        )
        assert rows(model) == {"ids": 12}

    def test_the_smallest_table_counts(self):
        model = lookup(
            node("Gather", "a ids", "x"), node("Gather", "b ids", "y"), tables=[("a", 9), ("b", 5)]
        )
        assert rows(model) == {"ids": 5}

    def test_each_input_has_its_own(self):
        model = lookup(
            node("Gather", "a ids", "x"),
            node("Gather", "b types", "y"),
            tables=[("a", 9), ("b", 2)],
            inputs=("ids", "types"),
        )
        assert rows(model) == {"ids": 9, "types": 2}

    def test_a_lookup_in_a_body(self):
        body = helper.make_graph([node("Gather", "w ids", "e")], "body", [], [])
        body.initializer.append(onnx.numpy_helper.from_array(np.zeros((7, 4)), "w"))
        assert rows(lookup(node("If", "c", "o", then_branch=body))) == {"ids": 7}

    def test_fused_embedding(self):
        model = lookup(
            node("EmbedLayerNormalization", "ids types a b c g h", "o", domain="com.microsoft"),
            tables=[("a", 40), ("b", 8), ("c", 2)],
            inputs=("ids", "types"),
        )
        assert rows(model) == {"ids": 40, "types": 2}

    @pytest.mark.parametrize(
        "nodes",
        [
            [node("Gather", "ids w", "e")],  # the input is the data, not the index
            [node("Gather", "unknown ids", "e")],
            [node("Add", "ids ids", "a"), node("Gather", "w a", "e")],  # the value changes
            [node("Reshape", "x ids", "a"), node("Gather", "w a", "e")],  # only a shape
        ],
    )
    def test_what_is_no_lookup(self, nodes):
        assert rows(lookup(*nodes, tables=[("w", 30)])) == {}

    def test_values_stay_inside_the_table(self):
        model = lookup(node("Gather", "w ids", "e"), tables=[("w", 30)])
        values = feed("ids", 50, 50, dtype=np.int64, model=model)
        assert (values.min(), values.max()) == (0, 29)


class TestSamples:
    def make(self, *specs, count=6, seed=0, **shapes):
        return synthetic_samples(EMPTY, specs, shapes, count=count, seed=seed)

    def test_stacked_and_said_loudly(self):
        samples = self.make(spec("x", "n", 3), spec("m", "n"), x=(4, 3), m=(4,))
        assert (len(samples), samples.stacked, samples.synthetic) == (6, True, True)
        assert "synthetic" in samples.notes[0]
        assert [f["x"].shape for f in samples.feeds(range(6), 4)] == [(4, 3), (2, 3)]

    def test_the_seed_decides(self):
        def first(seed):
            return self.make(spec("x", "n", 3), seed=seed, x=(1, 3)).entries[0]["x"].tolist()

        assert first(1) == first(1)
        assert first(1) != first(2)

    def test_samples_differ(self):
        samples = self.make(spec("x", "n", 3), x=(1, 3))
        assert len({e["x"].tobytes() for e in samples.entries}) == 6

    def test_a_fixed_batch(self):
        samples = self.make(spec("x", 4, 3), count=2, x=(4, 3))
        assert (len(samples), samples.fixed_batch) == (4, 4)
        assert [f["x"].shape for f in samples.feeds(range(4), 1)] == [(4, 3)]

    @pytest.mark.parametrize(
        "specs",
        [
            (spec("x", "n", 3), spec("h", 2, "n", 3)),  # axis 0 of h counts layers
            (spec("x", "seq", "batch", 3),),
            (spec("x", "n"), spec("y", "m")),
        ],
    )
    def test_full_feeds_where_axis_0_is_not_the_batch_of_all(self, specs):
        shapes = {s.name: tuple(d if isinstance(d, int) else 5 for d in s.shape) for s in specs}
        samples = self.make(*specs, count=2, **shapes)
        assert (len(samples), samples.stacked) == (2, False)
        assert {name: a.shape for name, a in samples.entries[1].items()} == shapes

    def test_scalars_are_the_same_in_all_so_that_samples_can_be_joined(self):
        samples = self.make(spec("x", "n", 3), spec("t"), x=(1, 3), t=())
        assert len({float(e["t"]) for e in samples.entries}) == 1
        (joined,) = samples.feeds(range(6), 6)
        assert joined["t"].shape == ()

    def test_a_model_without_inputs(self):
        samples = self.make(count=2)
        assert list(samples.feeds([0, 1], 2)) == [{}, {}]
