import ml_dtypes
import numpy as np
import pytest

from onnxprune.data.conform import collect, fixed_batch, full_feed, table
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError


def spec(name, *shape, dtype=np.float32):
    return InputSpec(name, np.dtype(dtype), shape)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def read(specs, limit=100, seed=0, **arrays):
    return collect([table("f.npz", arrays, specs)], specs, limit=limit, seed=seed)


X = [spec("x", "n", 3)]


class TestLayout:
    def test_the_rank_of_the_input_means_samples_on_axis_0(self):
        samples = read(X, x=np.arange(12, dtype=np.float32).reshape(4, 3))
        assert (len(samples), samples.stacked, samples.synthetic) == (4, True, False)
        (feed,) = samples.feeds([1, 3], 8)
        assert feed["x"].tolist() == [[3, 4, 5], [9, 10, 11]]

    def test_one_axis_more_means_full_feeds(self):
        samples = read(X, x=np.arange(24, dtype=np.float32).reshape(4, 2, 3))
        assert (len(samples), samples.stacked) == (4, False)
        assert [f["x"].tolist() for f in samples.feeds([1], 8)] == [[[6, 7, 8], [9, 10, 11]]]

    @pytest.mark.parametrize("shape", [(3,), (5, 4, 2, 3)])
    def test_any_other_rank(self, shape):
        with pytest.raises(InputError, match=r"f\.npz: 'x' has shape \[.*\], the model's input is"):
            read(X, x=zeros(*shape))

    def test_layouts_may_not_be_mixed(self):
        specs = [spec("x", "n", 3), spec("y", "n", 3)]
        with pytest.raises(InputError, match="'x' has its samples on axis 0, 'y' one full feed"):
            read(specs, x=zeros(5, 3), y=zeros(5, 2, 3))

    def test_tables_of_different_layout(self):
        tables = [table("a", {"x": zeros(5, 3)}, X), table("b", {"x": zeros(5, 1, 3)}, X)]
        with pytest.raises(InputError, match="a and b are laid out differently"):
            collect(tables, X, limit=9, seed=0)

    def test_tables_of_different_sizes_run_one_sample_at_a_time(self):
        specs = [spec("x", "n", "t")]
        tables = [table("a", {"x": zeros(2, 3)}, specs), table("b", {"x": zeros(1, 5)}, specs)]
        samples = collect(tables, specs, limit=9, seed=0)
        assert not samples.stacked
        assert [e["x"].shape for e in samples.entries] == [(1, 3), (1, 3), (1, 5)]
        assert any("one sample per run" in note for note in samples.notes)

    def test_different_sizes_cannot_fill_a_fixed_batch(self):
        specs = [spec("x", 2, "t")]
        tables = [table("a", {"x": zeros(2, 3)}, specs), table("b", {"x": zeros(2, 5)}, specs)]
        with pytest.raises(InputError, match="no batches of 2"):
            collect(tables, specs, limit=9, seed=0)


class TestNames:
    def test_extra_keys_are_ignored_with_a_note(self):
        samples = read(X, x=zeros(2, 3), labels=np.zeros(9))
        assert samples.names == ("x",)
        assert samples.notes == ("ignored extra key 'labels'",)

    def test_a_missing_input_gets_the_closest_key(self):
        with pytest.raises(InputError, match=r"no data for input 'x_in'; did you mean 'x_inn'\?"):
            read([spec("x_in", "n")], x_inn=zeros(2))

    def test_arrays_saved_without_names(self):
        with pytest.raises(InputError, match=r"input 'x'; name it when saving: np.savez\("):
            read(X, arr_0=zeros(2, 3))


class TestCounts:
    def test_different_numbers_of_samples(self):
        specs = [spec("x", "n", 3), spec("y", "n")]
        with pytest.raises(InputError, match="numbers of samples: 'x' 5, 'y' 4; an input"):
            read(specs, x=zeros(5, 3), y=zeros(4))

    def test_no_samples(self):
        with pytest.raises(InputError, match=r"f\.npz holds no samples"):
            read(X, x=zeros(0, 3))

    def test_limit_takes_a_random_subset_in_order(self):
        data = np.arange(100, dtype=np.float32)
        taken = read([spec("x", "n")], x=data, limit=10, seed=3)
        (feed,) = taken.feeds(range(10), 10)
        assert len(taken) == 10
        assert (np.diff(feed["x"]) > 0).all()
        assert feed["x"].tolist() != list(range(10))
        assert "took 10 of 100 samples at random (seed 3)" in taken.notes

    def test_limit_never_undercuts_a_fixed_batch(self):
        assert len(read([spec("x", 8)], x=zeros(20), limit=2)) == 8


class TestScalars:
    SPECS = (spec("x", "n", 3), spec("t"))

    def test_rank_0_is_the_same_for_all_and_noted(self):
        samples = read(self.SPECS, x=zeros(5, 3), t=np.float32(2.5))
        (feed,) = samples.feeds([0, 4], 8)
        assert (feed["x"].shape, feed["t"].shape, float(feed["t"])) == ((2, 3), (), 2.5)
        assert samples.notes == ("scalar input 't' is the same for all samples",)

    def test_rank_0_beside_full_feeds(self):
        samples = read(self.SPECS, x=zeros(5, 1, 3), t=np.float32(2.5))
        assert all(e["t"] == 2.5 for e in samples.entries)

    def test_one_per_sample_runs_one_sample_at_a_time(self):
        samples = read(self.SPECS, x=zeros(3, 3), t=np.arange(3, dtype=np.float32))
        assert not samples.stacked
        assert [float(e["t"]) for e in samples.entries] == [0, 1, 2]
        assert samples.entries[0]["t"].shape == ()

    def test_only_scalars(self):
        assert len(read([spec("t")], t=np.float32(1))) == 1
        assert len(read([spec("t")], t=np.ones(4, np.float32))) == 4


class TestSizes:
    def test_wrong_fixed_size(self):
        with pytest.raises(InputError, match=r"'x' has size 4 on axis 1, .* wants 3 \(float32"):
            read(X, x=zeros(5, 4))

    def test_wrong_fixed_size_in_full_feeds_counts_the_inputs_axes(self):
        with pytest.raises(InputError, match="'x' has size 2 on axis 0, the model wants 1 "):
            read([spec("x", 1, 3)], x=zeros(5, 2, 3))

    def test_channels_last_data_for_a_channels_first_model(self):
        with pytest.raises(InputError, match=r"are last: try np\.transpose\(x, \(0, 3, 1, 2\)\)"):
            read([spec("x", "n", 3, 8, 9)], x=zeros(5, 8, 9, 3))

    def test_channels_first_data_for_a_channels_last_model(self):
        with pytest.raises(InputError, match=r"are first: try np\.transpose\(x, \(0, 2, 3, 1\)\)"):
            read([spec("x", "n", 8, 9, 3)], x=zeros(5, 3, 8, 9))

    def test_no_hint_where_moving_channels_would_not_help(self):
        with pytest.raises(InputError) as caught:
            read([spec("x", "n", 3, 8, 9)], x=zeros(5, 7, 7, 7))
        assert "transpose" not in str(caught.value)

    def test_axis_0_of_stacked_samples_need_not_be_the_fixed_batch(self):
        samples = read([spec("x", 2, 3)], x=zeros(5, 3))
        assert samples.fixed_batch == 2
        assert [f["x"].shape for f in samples.feeds(range(5), 64)] == [(2, 3), (2, 3)]

    def test_fixed_batch(self):
        assert fixed_batch([spec("x", "n", 3), spec("t")]) is None
        assert fixed_batch([spec("x", 4, 3), spec("m", "n"), spec("t")]) == 4

    def test_axes_0_fixed_at_different_sizes(self):
        specs = [spec("x", 1, 3), spec("boxes", 5, 4)]
        with pytest.raises(InputError, match="input 'x' is fixed at 1 and of 'boxes' at 5"):
            read(specs, x=zeros(5, 3), boxes=zeros(5, 4))
        assert len(read(specs, x=zeros(7, 1, 3), boxes=zeros(7, 5, 4))) == 7


class TestDtypes:
    @pytest.mark.parametrize(
        ("have", "want"),
        [("float64", "float32"), ("float32", "float16"), ("float16", "float64"), ("int32", "int64"),
         ("uint8", "int64"), ("int64", "int32"), ("bool", "int64"), ("bool", "float32"),
         ("int64", "bool"), ("int64", "int8")],
    )  # fmt: skip
    def test_casts_that_keep_the_meaning_are_noted(self, have, want):
        samples = read([spec("x", "n", dtype=want)], x=np.array([0, 1], have))
        assert [e["x"].dtype for e in samples.entries] == [np.dtype(want)] * 2
        assert [e["x"].item() for e in samples.entries] == [0, 1]
        assert samples.notes == (f"'x' is cast from {have} to {want}",)

    def test_the_same_dtype_is_not_noted_nor_is_byte_order(self):
        assert read([spec("x", "n")], x=np.array([1, 2], ">f4")).notes == ()
        assert read([spec("x", "n")], x=np.array([1, 2], "<f4")).notes == ()

    @pytest.mark.parametrize("have", ["uint8", "int64"])
    def test_integers_for_floats_are_refused_with_the_reason(self, have):
        with pytest.raises(InputError, match=f"'x' is {have}, .* wants float32; .*unnormalised"):
            read([spec("x", "n")], x=np.array([0, 255], have))

    @pytest.mark.parametrize("want", ["int64", "bool"])
    def test_floats_for_integers_are_refused(self, want):
        with pytest.raises(InputError, match=f"'x' is float32, .* wants {want}; .*fractions"):
            read([spec("x", "n", dtype=want)], x=np.array([0, 1], np.float32))

    @pytest.mark.parametrize("have", ["complex64", "<U3", "datetime64[s]"])
    def test_what_cannot_be_cast_at_all(self, have):
        with pytest.raises(InputError, match=r"'x' is .*, the model wants float32"):
            read([spec("x", "n")], x=np.zeros(2, have))

    def test_structured_arrays(self):
        with pytest.raises(InputError, match="the model wants float32"):
            read([spec("x", "n")], x=np.zeros(2, [("a", "f4")]))

    @pytest.mark.parametrize(
        ("have", "want", "text"),
        [(np.array([1, 300]), "int8", "in sample 1 has values from 300 to 300, int8 holds -128"),
         (np.array([0, -1]), "uint8", "sample 1 has values from -1 to -1, uint8 holds 0 to 255"),
         (np.array([0, 2]), "bool", "sample 1 has values from 2 to 2, bool holds 0 to 1"),
         (np.array([0, 1e9]), "float16", "sample 1 has values that are too large for float16")],
    )  # fmt: skip
    def test_values_that_do_not_fit(self, have, want, text):
        with pytest.raises(InputError, match=text):
            read([spec("x", "n", dtype=want)], x=have)

    def test_a_cast_of_nothing(self):
        specs = [spec("past", "n", "t", dtype=np.int64)]
        assert read(specs, past=zeros(2, 0, dtype=np.int32)).entries[0]["past"].shape == (1, 0)

    def test_int4(self):
        specs = [spec("x", "n", dtype=ml_dtypes.int4)]
        assert read(specs, x=np.array([7])).entries[0]["x"].dtype == ml_dtypes.int4
        with pytest.raises(InputError, match="int4 holds -8 to 7"):
            read(specs, x=np.array([8]))

    def test_bfloat16_from_floats_and_from_the_nameless_bytes_of_a_file(self):
        specs = [spec("x", "n", dtype=ml_dtypes.bfloat16)]
        data = np.array([1.5, 2], ml_dtypes.bfloat16)
        for given in (data, data.view("V2"), data.astype(np.float32)):
            entries = read(specs, x=given).entries
            assert [e["x"].dtype for e in entries] == [np.dtype(ml_dtypes.bfloat16)] * 2
            assert float(entries[0]["x"][0]) == 1.5

    @pytest.mark.parametrize("have", ["<U3", "S3"])
    def test_strings(self, have):
        samples = read([spec("s", "n", dtype=object)], s=np.array(["abc", "d"], have))
        assert [e["s"].tolist() for e in samples.entries] == [["abc"], ["d"]]
        assert samples.entries[0]["s"].dtype == object

    def test_numbers_for_strings(self):
        with pytest.raises(InputError, match="'s' is float32, the model wants strings"):
            read([spec("s", "n", dtype=object)], s=zeros(2))


class TestFinite:
    @pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-np.inf, "infinite values")])
    def test_input_and_sample_are_named(self, value, word):
        data = zeros(5, 3)
        data[2, 1] = value
        with pytest.raises(InputError, match=rf"f\.npz: 'x' in sample 2 has {word}"):
            read(X, x=data)

    def test_also_where_a_cast_is_needed(self):
        with pytest.raises(InputError, match="NaN"):
            read(X, x=np.full((2, 3), np.nan, np.float64))


def test_the_samples_own_their_memory():
    data = zeros(4, 3)
    samples = read(X, x=data)
    data[:] = 9
    assert samples.entries[0]["x"].tolist() == [[0, 0, 0]]


def test_a_full_feed_must_have_the_rank_of_the_input():
    assert full_feed("feed", {"x": zeros(2, 3)}, X).stacked is False
    with pytest.raises(InputError, match=r"feed: 'x' has shape \[3\], the model's input is"):
        full_feed("feed", {"x": zeros(3)}, X)
    with pytest.raises(InputError, match=r"feed: 'x' has shape \[4, 2, 3\]"):
        full_feed("feed", {"x": zeros(4, 2, 3)}, X)
