import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.data.samples import Samples
from onnxprune.data.specs import (
    InputSpec,
    input_specs,
    named_dims,
    resolve_shapes,
)
from onnxprune.errors import InputError, UsageError


def spec(name, *shape, dtype=np.float32):
    return InputSpec(name, np.dtype(dtype), shape)


def model_of(*inputs, initializers=()):
    graph = helper.make_graph([], "g", list(inputs), [], initializer=list(initializers))
    return helper.make_model(graph)


def resolve(*specs, input_shapes=(), dims=(), samples=None, **more):
    return resolve_shapes(
        specs, input_shapes=dict(input_shapes), dims=dict(dims), samples=samples, **more
    )


def feed_samples(stacked, **arrays):
    return Samples(names=tuple(arrays), entries=(arrays,), stacked=stacked)


class TestInputSpecs:
    def test_order_dtypes_and_kinds_of_axes(self):
        model = model_of(
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 3, None]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, []),
        )
        assert input_specs(model) == (
            InputSpec("x", np.dtype(np.float16), ("batch", 3, None)),
            InputSpec("ids", np.dtype(np.int64), ()),
        )

    def test_initializers_listed_as_inputs_are_left_out(self):
        weight = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
        sparse = onnx.SparseTensorProto()
        sparse.values.name = "s"
        model = model_of(
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            initializers=[weight],
        )
        model.graph.sparse_initializer.append(sparse)
        assert [s.name for s in input_specs(model)] == ["x"]

    @pytest.mark.parametrize("size", [0, -1])
    def test_sizes_below_one_mean_dynamic(self, size):
        model = model_of(helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, 4]))
        assert input_specs(model)[0].shape == (None, 4)

    @pytest.mark.parametrize("name", ["?", "-1", "*", "None", "unk"])
    def test_names_that_mean_no_name_are_none(self, name):
        model = model_of(
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [name, 3, name, "w"])
        )
        assert input_specs(model)[0].shape == (None, 3, None, "w")

    def test_bfloat16_and_strings_have_a_dtype(self):
        model = model_of(
            helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [1]),
            helper.make_tensor_value_info("s", TensorProto.STRING, [1]),
        )
        b, s = input_specs(model)
        assert b.dtype.name == "bfloat16"
        assert str(s) == "string [1]"

    def test_a_sequence_is_rejected_by_name_and_kind(self):
        model = model_of(helper.make_tensor_sequence_value_info("seq", TensorProto.FLOAT, [1]))
        with pytest.raises(InputError, match=r"'seq' is not a tensor \(sequence\)"):
            input_specs(model)

    def test_an_untyped_input_is_rejected(self):
        model = model_of(onnx.ValueInfoProto(name="x"))
        with pytest.raises(InputError, match=r"'x' is not a tensor \(untyped\)"):
            input_specs(model)

    def test_an_input_without_rank_is_rejected(self):
        model = model_of(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
        with pytest.raises(InputError, match="'x' declares no rank"):
            input_specs(model)

    def test_an_unknown_element_type_is_rejected(self):
        model = model_of(helper.make_tensor_value_info("x", 99, [1]))
        with pytest.raises(InputError, match=r"'x' has no known element type \(99\)"):
            input_specs(model)


class TestResolveShapes:
    def test_defaults(self):
        assert resolve(spec("x", None, 3, None, "w")) == {"x": (1, 3, 16, 16)}

    def test_batch_and_other_can_be_chosen(self):
        assert resolve(spec("x", None, 3, "h"), batch=8, other=5) == {"x": (8, 3, 5)}

    def test_fixed_sizes_stay(self):
        assert resolve(spec("x", 2, 3), batch=8) == {"x": (2, 3)}

    def test_the_batch_axis_is_found_by_its_name(self):
        assert resolve(spec("x", "seq", "batch_size", 4)) == {"x": (16, 1, 4)}

    def test_a_name_has_one_size_everywhere(self):
        shapes = resolve(spec("h0", 2, "n", 8), spec("x", "n", "t"), batch=3)
        assert shapes == {"h0": (2, 3, 8), "x": (3, 16)}

    def test_names_that_are_sums_are_computed(self):
        shapes = resolve(
            spec("mask", "batch", "past + seq"),
            spec("ids", "batch", "seq"),
            spec("past", "batch", 4, "past", 8),
            dims={"past": 5, "seq": 3},
        )
        assert shapes["mask"] == (1, 8)

    def test_a_sum_given_by_the_user_is_not_computed(self):
        specs = spec("mask", "batch", "past + 1"), spec("past", "batch", "past")
        assert resolve(*specs, dims={"past + 1": 9, "past": 8})["mask"] == (1, 9)

    def test_a_sum_of_unknown_names_is_like_any_other(self):
        assert resolve(spec("x", "batch", "2*s9")) == {"x": (1, 16)}

    def test_order_of_precedence(self):
        x = spec("x", "n", "h", "w", None)
        samples = feed_samples(False, x=np.zeros((4, 5, 6, 7)))
        assert resolve(x, samples=samples) == {"x": (4, 5, 6, 7)}
        assert resolve(x, samples=samples, dims={"h": 9}) == {"x": (4, 9, 6, 7)}
        assert resolve(x, samples=samples, input_shapes={"x": (1, 2, 3, 4)}) == {"x": (1, 2, 3, 4)}

    def test_axis_0_of_stacked_samples_is_no_batch(self):
        samples = feed_samples(True, x=np.zeros((1, 5)))
        assert resolve(spec("x", "n", "h"), samples=samples, batch=32) == {"x": (32, 5)}

    def test_synthetic_samples_are_no_evidence(self):
        made = Samples(
            names=("x",), entries=({"x": np.zeros((1, 5))},), stacked=True, synthetic=True
        )
        assert resolve(spec("x", "n", "h"), samples=made) == {"x": (1, 16)}

    def test_misspelt_input(self):
        with pytest.raises(UsageError, match=r"no input 'imgae'; did you mean 'image'\?"):
            resolve(spec("image", None), input_shapes={"imgae": (1,)})

    def test_the_only_input_needs_no_name(self):
        assert resolve(spec("x", None, 3), input_shapes={"": (5, 3)}) == {"x": (5, 3)}

    def test_several_inputs_need_a_name(self):
        specs = [spec("a", None, 3), spec("b", None, 3)]
        with pytest.raises(UsageError, match="must name its input: the model has 'a', 'b'"):
            resolve(*specs, input_shapes={"": (1, 3)})

    def test_misspelt_dim(self):
        with pytest.raises(UsageError, match=r"dimension named 'bacth'; did you mean 'batch'\?"):
            resolve(spec("x", "batch"), dims={"bacth": 2})

    def test_dim_of_a_model_without_names(self):
        with pytest.raises(UsageError, match="'batch'; all are fixed or nameless"):
            resolve(spec("x", None, 3), dims={"batch": 2})

    def test_fixed_size_contradicted(self):
        with pytest.raises(UsageError, match="'x': axis 1 is fixed at 3, not 4"):
            resolve(spec("x", None, 3), input_shapes={"x": (1, 4)})

    def test_wrong_rank(self):
        with pytest.raises(UsageError, match=r"'x' has 2 axes, .* is float32 \[\?, 3, w\]"):
            resolve(spec("x", None, 3, "w"), input_shapes={"x": (1, 3)})

    def test_shape_and_dim_contradict_each_other(self):
        with pytest.raises(UsageError, match="dimension 'n' two sizes: 2 and 5"):
            resolve(spec("x", "n", 3), input_shapes={"x": (2, 3)}, dims={"n": 5})

    def test_two_shapes_contradict_each_other(self):
        with pytest.raises(UsageError, match="dimension 'n' two sizes: 2 and 5"):
            resolve(spec("x", "n"), spec("y", "n"), input_shapes={"x": (2,), "y": (5,)})

    def test_the_data_contradicts_itself(self):
        samples = feed_samples(False, x=np.zeros((2, 3)), y=np.zeros((2, 4)))
        with pytest.raises(InputError, match="the data give dimension 't' two sizes: 3 and 4"):
            resolve(spec("x", "n", "t"), spec("y", "n", "t"), samples=samples)


def test_named_dims():
    specs = (spec("x", "n", 3, None), spec("y", "n"))
    assert named_dims(specs, {"x": (1, 3, 7), "y": (1,)}) == {"n": 1, "x[2]": 7}


def test_sizes_that_no_feed_can_have_are_refused():
    with pytest.raises(InputError, match=r"input 'x' \(float32 \[10{11}, 4\]\) .* 1,600\.0 GB"):
        resolve(spec("x", 10**11, 4))
    with pytest.raises(InputError, match="smaller sizes"):
        resolve(spec("x", "n", 4), input_shapes={"x": (10**11, 4)})
    assert resolve(spec("x", 10**6, 4)) == {"x": (10**6, 4)}
