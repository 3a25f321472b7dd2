import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune.data.load import load_samples
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError


def spec(name, *shape, dtype=np.float32):
    return InputSpec(name, np.dtype(dtype), shape)


X = [spec("x", "n", 3)]
XY = [spec("x", "n", 3), spec("y", "n", dtype=np.int64)]


def load(path, specs=X, limit=100, seed=0):
    return load_samples(path, specs, limit=limit, seed=seed)


def ramp(n, start=0):
    return np.arange(start, start + 3 * n, dtype=np.float32).reshape(n, 3)


def values(samples):
    return [float(e["x"].flat[0]) for e in samples.entries]


class TestFiles:
    def test_npz(self, tmp_path):
        np.savez(tmp_path / "f.npz", x=ramp(4), y=np.arange(4), labels=np.arange(4))
        samples = load(tmp_path / "f.npz", XY)
        (feed,) = samples.feeds(range(4), 9)
        assert feed["x"].tolist() == ramp(4).tolist()
        assert feed["y"].tolist() == [0, 1, 2, 3]
        assert samples.notes == ("ignored extra key 'labels'",)

    def test_npz_with_names_of_tensorflow(self, tmp_path):
        np.savez_compressed(tmp_path / "f.npz", **{"a/x:0": ramp(2)})
        assert len(load(tmp_path / "f.npz", [spec("a/x:0", "n", 3)])) == 2

    def test_an_extra_key_may_be_pickled(self, tmp_path):
        np.savez(tmp_path / "f.npz", x=ramp(2), meta=np.array([{}], object))
        assert len(load(tmp_path / "f.npz")) == 2

    @pytest.mark.parametrize("name", ["f.npy", "F.NPY"])
    def test_npy(self, tmp_path, name):
        with (tmp_path / name).open("wb") as file:
            np.save(file, ramp(4))
        assert values(load(tmp_path / name)) == [0, 3, 6, 9]

    def test_npy_in_fortran_order_and_full_feeds(self, tmp_path):
        np.save(tmp_path / "f.npy", np.asfortranarray(ramp(4).reshape(2, 2, 3)))
        samples = load(tmp_path / "f.npy")
        assert (len(samples), samples.stacked) == (2, False)
        assert samples.entries[1]["x"].tolist() == [[6, 7, 8], [9, 10, 11]]

    def test_npy_for_several_inputs(self, tmp_path):
        np.save(tmp_path / "f.npy", ramp(4))
        with pytest.raises(InputError, match=r"one input, the model has 'x', 'y'; save an"):
            load(tmp_path / "f.npy", XY)

    def test_a_model_without_inputs(self, tmp_path):
        with pytest.raises(InputError, match="the model has no inputs"):
            load(tmp_path, [])


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"calibration data .*nowhere\.npz does not exist"):
            load(tmp_path / "nowhere.npz")

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "f.npy")
        with pytest.raises(InputError, match=r"f\.npy is neither a file nor a directory"):
            load(tmp_path / "f.npy")

    @pytest.mark.parametrize("name", ["f.csv", "f.pt", "f", "photo.png"])
    def test_unknown_kind(self, tmp_path, name):
        (tmp_path / name).write_text("1,2,3")
        with pytest.raises(InputError, match=r"cannot read .*; --data takes \.npz, .*--loader"):
            load(tmp_path / name)

    @pytest.mark.parametrize("name", ["f.npz", "f.npy"])
    def test_pickled(self, tmp_path, name):
        (tmp_path / name).write_bytes(pickle.dumps([1, 2]))
        with pytest.raises(InputError, match="pickled or no NumPy file"):
            load(tmp_path / name)

    def test_object_arrays(self, tmp_path):
        objects = np.array([{}], object)
        np.save(tmp_path / "f.npy", objects, allow_pickle=True)
        np.savez(tmp_path / "f.npz", x=objects)
        for name in ("f.npy", "f.npz"):
            with pytest.raises(InputError, match="pickled or no NumPy file"):
                load(tmp_path / name)

    @pytest.mark.parametrize("name", ["f.npz", "f.npy"])
    def test_empty(self, tmp_path, name):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=rf"{name} is empty"):
            load(tmp_path / name)

    def test_lfs_pointer(self, tmp_path):
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        (tmp_path / "f.npz").write_text(pointer)
        with pytest.raises(InputError, match="git-lfs pointer"):
            load(tmp_path / "f.npz")

    @pytest.mark.parametrize("keep", [60, 300])
    def test_truncated_npy(self, tmp_path, keep):
        buffer = io.BytesIO()
        np.save(buffer, ramp(100))
        (tmp_path / "f.npy").write_bytes(buffer.getvalue()[:keep])
        with pytest.raises(InputError, match=r"^cannot read .*f\.npy: \S.*$"):
            load(tmp_path / "f.npy")

    @pytest.mark.parametrize("shape", [(10**12, 3), (10**30, 3)])
    def test_a_header_that_lies_about_the_size(self, tmp_path, shape):
        buffer = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        (tmp_path / "f.npy").write_bytes(buffer.getvalue())
        with pytest.raises(InputError, match=r"^cannot read .*f\.npy: \S.*$"):
            load(tmp_path / "f.npy")

    def test_a_header_that_cannot_be_parsed(self, tmp_path):
        (tmp_path / "f.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr':(((((((\n")
        with pytest.raises(InputError, match=r"^cannot read .*f\.npy: \S.*$"):
            load(tmp_path / "f.npy")

    def test_encrypted_npz(self, tmp_path):
        np.savez(tmp_path / "f.npz", x=ramp(2))
        content = bytearray((tmp_path / "f.npz").read_bytes())
        content[content.find(b"PK\x01\x02") + 8] |= 1
        (tmp_path / "f.npz").write_bytes(bytes(content))
        with pytest.raises(InputError, match=r"cannot read .*f\.npz: .*encrypted"):
            load(tmp_path / "f.npz")

    def test_truncated_npz(self, tmp_path):
        buffer = io.BytesIO()
        np.savez(buffer, x=ramp(100))
        (tmp_path / "f.npz").write_bytes(buffer.getvalue()[:500])
        with pytest.raises(InputError, match=r"cannot read .*f\.npz: .*zip"):
            load(tmp_path / "f.npz")

    def test_damaged_npz(self, tmp_path):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, x=ramp(1000))
        damaged = bytearray(buffer.getvalue())
        damaged[300:340] = bytes(40)
        (tmp_path / "f.npz").write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"^cannot read .*f\.npz: \S.*$"):
            load(tmp_path / "f.npz")

    def test_a_zip_of_something_else(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
            archive.writestr("x", "text")
        with pytest.raises(InputError, match="zip archive but not one of NumPy arrays"):
            load(tmp_path / "f.npz")

    def test_npy_called_npz_and_the_other_way_round(self, tmp_path):
        with (tmp_path / "f.npz").open("wb") as file:
            np.save(file, ramp(2))
        with (tmp_path / "f.npy").open("wb") as file:
            np.savez(file, x=ramp(2))
        with pytest.raises(InputError, match=r"cannot read .*it is an \.npy array"):
            load(tmp_path / "f.npz")
        with pytest.raises(InputError, match=r"is an \.npz archive; give it that suffix"):
            load(tmp_path / "f.npy")


class TestDirectories:
    def test_stacked_files_are_joined_in_natural_order(self, tmp_path):
        for number, start in ((10, 90), (2, 30), (1, 0)):
            np.save(tmp_path / f"part{number}.npy", ramp(2, start))
        np.savez(tmp_path / "part11.npz", x=ramp(1, 200))
        samples = load(tmp_path)
        assert samples.stacked
        assert values(samples) == [0, 3, 30, 33, 90, 93, 200]

    def test_files_of_full_feeds(self, tmp_path):
        for number in range(3):
            np.save(tmp_path / f"{number}.npy", ramp(2, 100 * number)[None])
        samples = load(tmp_path)
        assert not samples.stacked
        assert values(samples) == [0, 100, 200]

    def test_one_file_per_input(self, tmp_path):
        np.save(tmp_path / "x.npy", ramp(3))
        np.save(tmp_path / "y.npy", np.arange(3))
        np.save(tmp_path / "labels.npy", np.arange(3))
        samples = load(tmp_path, XY)
        assert (len(samples), samples.names) == (3, ("x", "y"))
        assert samples.notes == ("ignored extra key 'labels'",)

    def test_no_more_files_than_needed_are_read(self, tmp_path):
        for number in range(9):
            np.save(tmp_path / f"{number}.npy", ramp(1, 100 * number))
        samples = load(tmp_path, limit=4)
        assert len(samples) == 4
        assert values(samples) == sorted(values(samples))
        assert samples.notes == ("read 4 of 9 files (seed 0)",)

    def test_the_bad_file_is_named(self, tmp_path):
        np.save(tmp_path / "0.npy", ramp(2))
        np.save(tmp_path / "1.npy", np.zeros((2, 4), np.float32))
        with pytest.raises(InputError, match=r"1\.npy: 'x' has size 4 on axis 1"):
            load(tmp_path)

    def test_a_directory_that_may_not_be_listed(self, tmp_path, monkeypatch):
        def refuse(_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
        with pytest.raises(InputError, match=r"cannot read directory .*: Permission denied"):
            load(tmp_path)

    @pytest.mark.parametrize("name", [None, "readme.txt", ".f.npy", "deep/f.npy", ".git/f.png"])
    def test_nothing_to_read(self, tmp_path, name):
        if name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("?")
        with pytest.raises(InputError, match="holds no calibration data; --data takes"):
            load(tmp_path)


def write_set(folder, *arrays, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        tensor = numpy_helper.from_array(array, names[i] if names else f"tensor{i}")
        (folder / f"input_{i}.pb").write_bytes(tensor.SerializeToString())
    (folder / "output_0.pb").write_bytes(b"not read")


class TestTestDataSets:
    def test_one_set_in_graph_order(self, tmp_path):
        write_set(tmp_path, ramp(2), np.arange(2))
        samples = load(tmp_path, XY)
        assert (len(samples), samples.stacked) == (1, False)
        assert samples.entries[0]["x"].tolist() == ramp(2).tolist()
        assert samples.entries[0]["y"].tolist() == [0, 1]

    def test_names_of_inputs_go_before_the_order(self, tmp_path):
        write_set(tmp_path, np.arange(2), ramp(2), names=["y", "x"])
        assert load(tmp_path, XY).entries[0]["y"].tolist() == [0, 1]

    def test_a_directory_of_sets_whose_sizes_differ(self, tmp_path):
        for number in (10, 9):
            write_set(tmp_path / f"test_data_set_{number}", ramp(number, number))
        samples = load(tmp_path)
        assert values(samples) == [9, 10]
        assert [e["x"].shape for e in samples.entries] == [(9, 3), (10, 3)]

    def test_more_than_ten_inputs_are_in_numeric_order(self, tmp_path):
        specs = [spec(f"i{k}", "n") for k in range(11)]
        write_set(tmp_path, *(np.array([k], np.float32) for k in range(11)))
        entry = load(tmp_path, specs).entries[0]
        assert [float(entry[f"i{k}"][0]) for k in range(11)] == list(range(11))

    def test_scalars(self, tmp_path):
        write_set(tmp_path, np.array(3, np.float32))
        assert load(tmp_path, [spec("t")]).entries[0]["t"].shape == ()

    def test_too_few_and_too_many(self, tmp_path):
        write_set(tmp_path, ramp(1))
        with pytest.raises(InputError, match=r"has input_0\.pb; .* needs .*input_1\.pb for 'y'"):
            load(tmp_path, XY)
        write_set(tmp_path, ramp(1), np.arange(1), np.arange(1))
        with pytest.raises(InputError, match=r"has input_0\.pb, input_1\.pb, input_2\.pb; the"):
            load(tmp_path, XY)

    def test_wrong_shape(self, tmp_path):
        write_set(tmp_path, np.zeros((2, 4), np.float32))
        with pytest.raises(InputError, match="'x' has size 4 on axis 1, the model wants 3"):
            load(tmp_path)

    @pytest.mark.parametrize("content", [b"\xff\xff garbage", b""])
    def test_unreadable_tensor(self, tmp_path, content):
        (tmp_path / "input_0.pb").write_bytes(content)
        with pytest.raises(InputError, match=r"^cannot read tensor .*input_0\.pb: \S.*$"):
            load(tmp_path)

    def test_data_in_another_file_is_refused(self, tmp_path):
        tensor = TensorProto(dims=[1], data_type=1, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="secret")
        (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
        with pytest.raises(InputError, match="its data lies in another file"):
            load(tmp_path)
