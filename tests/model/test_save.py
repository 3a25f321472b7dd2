import errno
import os
import pathlib
import shutil
import stat

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import InputError, UsageError
from onnxprune.model import save as saving
from onnxprune.model.diff import field_diff
from onnxprune.model.files import write_text
from onnxprune.model.load import load
from onnxprune.model.save import check_target, copy, write
from onnxprune.model.tensors import from_array, to_array
from onnxprune.runtime.session import Session
from tests.model.small import WEIGHT, embedded, external, model, save

BIAS = np.arange(32, dtype=np.float32)


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def answer(path):
    return Session(path).run({"x": np.ones((1, 32), np.float32)})["y"]


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return load(save(tmp_path / "in" / "m.onnx", model()))


@pytest.fixture
def split(tmp_path):
    """A model with two large tensors and a small one in two data files."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (folder / "w.bin").write_bytes(b"pad!" + WEIGHT.tobytes() + BIAS.tobytes())
    (folder / "deep" / "v.bin").write_bytes((WEIGHT + 1).tobytes())
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["i"]),
        helper.make_node("MatMul", ["i", "V"], ["y"]),
    ]
    tensors = [
        external("w.bin", offset=4, length=4096),
        external("w.bin", name="b", array=BIAS, offset=4100),
        external("deep/v.bin", name="V"),
    ]
    return load(save(folder / "m.onnx", model(*tensors, nodes=nodes)))


def whole(made):
    return {tensor.name: to_array(tensor, made.path) for tensor in made.proto.graph.initializer}


class TestCheckTarget:
    @pytest.fixture
    def source(self, tmp_path):
        return save(tmp_path / "m.onnx", model())

    def refusal(self, source, target, *, force=True):
        with pytest.raises(UsageError) as caught:
            check_target(source, target, force=force)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_new_or_forced(self, source, tmp_path, monkeypatch):
        check_target(source, tmp_path / "new.onnx", force=False)
        (tmp_path / "old.onnx").write_bytes(b"old")
        check_target(source, tmp_path / "old.onnx", force=True)
        monkeypatch.chdir(tmp_path)
        check_target(source, pathlib.Path("bare.onnx"), force=False)
        assert names(tmp_path) == ["m.onnx", "old.onnx"]  # it looks, and makes nothing
        assert (tmp_path / "old.onnx").read_bytes() == b"old"

    def test_existing(self, source, tmp_path):
        (tmp_path / "old.onnx").write_bytes(b"")
        assert "--force" in self.refusal(source, tmp_path / "old.onnx", force=False)

    def test_a_dangling_link_is_something_too(self, source, tmp_path):
        (tmp_path / "link").symlink_to("nothing")
        assert "--force" in self.refusal(source, tmp_path / "link", force=False)

    def test_the_input_under_any_name(self, source, tmp_path, monkeypatch):
        (tmp_path / "soft.onnx").symlink_to("m.onnx")
        os.link(source, tmp_path / "hard.onnx")
        (tmp_path / "folder").symlink_to(".")
        (tmp_path / "deep").mkdir()
        for name in ("m.onnx", "soft.onnx", "hard.onnx", "folder/m.onnx", "deep/../m.onnx"):
            assert "is the input itself" in self.refusal(source, tmp_path / name)
        monkeypatch.chdir(tmp_path)
        assert "is the input" in self.refusal(source, pathlib.Path("m.onnx"))

    def test_folders(self, source, tmp_path):
        assert "is a folder" in self.refusal(source, tmp_path)
        assert "no folder" in self.refusal(source, tmp_path / "none" / "m.onnx")
        assert "no folder" in self.refusal(source, source / "m.onnx")

    def test_devices(self, source):
        """To replace /dev/null would be the end of the machine."""
        assert "no regular file" in self.refusal(source, pathlib.Path(os.devnull))

    def test_a_folder_that_may_not_be_written(self, source, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
        assert "may not be written" in self.refusal(source, tmp_path / "new.onnx")


class TestOneFile:
    def test_bytes_stay(self, plain, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        assert write(plain.proto, target, source=plain) == plain.bytes
        assert target.read_bytes() == plain.path.read_bytes()
        assert names(target.parent) == ["o.onnx"]

    def test_the_mode_is_that_of_any_new_file(self, plain, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        write(plain.proto, target, source=plain)
        (tmp_path / "usual").write_bytes(b"")
        modes = {stat.S_IMODE(p.stat().st_mode) for p in (target, tmp_path / "usual")}
        assert len(modes) == 1

    def test_a_target_without_folder(self, plain, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path / "out")
        write(plain.proto, pathlib.Path("o.onnx"), source=plain)
        assert names(tmp_path / "out") == ["o.onnx"]

    def test_a_link_is_replaced_not_followed(self, plain, tmp_path):
        (tmp_path / "precious").write_bytes(b"kept")
        target = tmp_path / "out" / "o.onnx"
        target.symlink_to(tmp_path / "precious")
        write(plain.proto, target, source=plain)
        assert (tmp_path / "precious").read_bytes() == b"kept"
        assert load(target).sha256 == plain.sha256

    def test_never_over_the_source(self, plain):
        before = plain.path.read_bytes()
        for call in (lambda t: write(plain.proto, t, source=plain), lambda t: copy(plain, t)):
            with pytest.raises(UsageError, match="belongs to the input"):
                call(plain.path)
        assert plain.path.read_bytes() == before


class TestDataFile:
    def test_round_trip(self, split, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        before = split.proto.SerializeToString(deterministic=True)
        size = write(split.proto, target, source=split)
        assert split.proto.SerializeToString(deterministic=True) == before
        assert names(target.parent) == ["o.onnx", "o.onnx.data"]
        made = load(target)
        assert made.bytes == size
        assert field_diff(split.proto, made.proto, bases=(split.path, target)) == []
        for name, array in whole(split).items():
            assert np.array_equal(whole(made)[name], array)
        assert np.array_equal(answer(target), answer(split.path))
        onnx.checker.check_model(str(target))

    def test_small_tensors_come_inside_large_ones_are_aligned(self, split, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        write(split.proto, target, source=split)
        tensors = {tensor.name: tensor for tensor in load(target).proto.graph.initializer}
        assert tensors["b"].raw_data == BIAS.tobytes()
        assert tensors["b"].data_location == TensorProto.DEFAULT
        for name in ("W", "V"):
            entries = {e.key: e.value for e in tensors[name].external_data}
            assert entries["location"] == "o.onnx.data"
            assert int(entries["offset"]) % 64 == 0
            assert not tensors[name].HasField("raw_data")

    def test_changed_tensors_are_embedded_before(self, split, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        cut = onnx.ModelProto()
        cut.CopyFrom(split.proto)
        cut.graph.initializer[0].CopyFrom(from_array(WEIGHT * 2, cut.graph.initializer[0]))
        before = cut.SerializeToString(deterministic=True)
        write(cut, target, source=split)
        assert cut.SerializeToString(deterministic=True) == before
        assert np.array_equal(whole(load(target))["W"], WEIGHT * 2)
        assert np.array_equal(whole(load(target))["V"], WEIGHT + 1)

    def test_nothing_large_needs_no_data_file(self, tmp_path, split):
        small = load(
            save(
                split.path.with_name("small.onnx"),
                model(external("w.bin", name="b", array=BIAS, offset=4100), nodes=[]),
            )
        )
        target = tmp_path / "out" / "o.onnx"
        write(small.proto, target, source=small)
        assert names(target.parent) == ["o.onnx"]
        assert np.array_equal(whole(load(target))["b"], BIAS)

    def test_an_old_data_file_is_replaced_not_appended_to(self, split, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        (tmp_path / "out" / "o.onnx.data").write_bytes(bytes(100_000))
        first = write(split.proto, target, source=split)
        assert write(split.proto, target, source=split) == first
        assert (tmp_path / "out" / "o.onnx.data").stat().st_size == 8192
        assert names(target.parent) == ["o.onnx", "o.onnx.data"]

    def test_too_much_for_one_file(self, plain, tmp_path, monkeypatch):
        monkeypatch.setattr(saving, "LARGEST_PROTO", 2000)
        target = tmp_path / "out" / "o.onnx"
        write(plain.proto, target, source=plain)
        assert names(target.parent) == ["o.onnx", "o.onnx.data"]
        assert target.stat().st_size < 1000
        assert np.array_equal(answer(target), answer(plain.path))

    def test_a_large_tensor_begins_a_page(self, tmp_path, plain, monkeypatch):
        monkeypatch.setattr(saving, "LARGEST_PROTO", 2000)
        large = np.ones(1 << 18, np.float32)
        odd = np.ones(257, np.float32)
        proto = model(embedded(odd, "a"), embedded(odd, "b"), embedded(large, "L"))
        write(proto, tmp_path / "out" / "o.onnx", source=plain)
        made = load(tmp_path / "out" / "o.onnx")
        entries = [{e.key: e.value for e in t.external_data} for t in made.proto.graph.initializer]
        assert [entry["offset"] for entry in entries] == ["0", "1088", "4096"]
        assert np.array_equal(whole(made)["L"], large)
        assert np.array_equal(whole(made)["b"], odd)

    def test_attributes_stay_where_they_are_kept(self, tmp_path, split):
        nodes = [
            helper.make_node("Constant", [], ["W"], value=embedded(WEIGHT, "")),
            helper.make_node("Constant", [], ["V"], value=external("deep/v.bin", name="")),
            helper.make_node("MatMul", ["x", "W"], ["h"]),
            helper.make_node("MatMul", ["h", "V"], ["y"]),
        ]
        proto = model(external("w.bin", name="U", offset=4), nodes=nodes)
        source = load(save(split.path.with_name("c.onnx"), proto))
        target = tmp_path / "out" / "o.onnx"
        write(source.proto, target, source=source)
        made = load(target).proto.graph.node
        assert made[0].attribute[0].t.raw_data == WEIGHT.tobytes()
        assert made[1].attribute[0].t.external_data[0].value == "o.onnx.data"
        assert np.array_equal(answer(target), answer(source.path))

    @pytest.mark.parametrize("name", ["w.bin", "m.onnx", "data_link"])
    def test_never_over_the_sources_files(self, split, name):
        """Neither as the model nor as its data file."""
        folder = split.path.parent
        (folder / "data_link").symlink_to("w.bin")
        before = {n: (folder / n).read_bytes() for n in names(folder)}
        with pytest.raises(UsageError, match="belongs to the input"):
            write(split.proto, folder / name, source=split)
        (folder / f"{name}.data").symlink_to("w.bin")
        with pytest.raises(UsageError, match="belongs to the input"):
            write(split.proto, folder / f"{name}", source=split)
        (folder / f"{name}.data").unlink()
        assert {n: (folder / n).read_bytes() for n in names(folder)} == before

    def test_a_source_whose_data_has_the_targets_name(self, tmp_path):
        (tmp_path / "o.onnx.data").write_bytes(WEIGHT.tobytes())
        source = load(save(tmp_path / "m.onnx", model(external("o.onnx.data"))))
        with pytest.raises(UsageError, match=r"o\.onnx\.data belongs to the input"):
            write(source.proto, tmp_path / "o.onnx", source=source)
        assert names(tmp_path) == ["m.onnx", "o.onnx.data"]


class TestBroken:
    """Whatever breaks, what was there is there, and nothing else is."""

    @pytest.fixture(params=["nothing before", "a model before"])
    def target(self, request, tmp_path, split):
        target = tmp_path / "out" / "o.onnx"
        if request.param == "a model before":
            (tmp_path / "other").mkdir()
            (tmp_path / "other" / "w.bin").write_bytes((WEIGHT * 3).tobytes())
            other = load(save(tmp_path / "other" / "m.onnx", model(external("w.bin"))))
            write(other.proto, target, source=other)
        return target

    @staticmethod
    def unchanged(target, split, error, match=None):
        before = {n: (target.parent / n).read_bytes() for n in names(target.parent)}
        proto = split.proto.SerializeToString(deterministic=True)
        with pytest.raises(error, match=match) as caught:
            write(split.proto, target, source=split)
        assert {n: (target.parent / n).read_bytes() for n in names(target.parent)} == before
        assert split.proto.SerializeToString(deterministic=True) == proto
        return str(caught.value)

    @pytest.mark.parametrize("fail_at", [1, 2, 3, 4])
    @pytest.mark.parametrize("failure", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
    def test_between_the_renames(self, split, target, monkeypatch, fail_at, failure):
        rename, calls = os.replace, []
        total = 4 if target.exists() else 2
        if fail_at > total:
            fail_at = total

        def breaking(old, new):
            calls.append(new)
            if len(calls) == fail_at:
                raise failure
            rename(old, new)

        monkeypatch.setattr(os, "replace", breaking)
        error = UsageError if isinstance(failure, OSError) else KeyboardInterrupt
        self.unchanged(target, split, error)
        assert len(calls) >= fail_at

    def test_no_moment_has_a_model_beside_foreign_data(self, split, target, monkeypatch):
        """What a crash between any two renames leaves is a right model, or none."""
        rename = os.replace

        def looking(old, new):
            rename(old, new)
            if target.exists():
                seen.append(whole(load(target))["W"][0, 1])

        seen = []
        monkeypatch.setattr(os, "replace", looking)
        write(split.proto, target, source=split)
        assert seen == [1.0]  # the new model's; the old one's is 3

    def test_disk_full(self, split, target, monkeypatch):
        def full(handle):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        text = self.unchanged(target, split, UsageError, match="No space left on device")
        assert str(target) in text
        assert "\n" not in text

    def test_data_of_the_source_is_gone(self, split, target):
        (split.path.parent / "deep" / "v.bin").unlink()
        text = self.unchanged(target, split, InputError, match="cannot be found")
        assert "v.bin" in text

    def test_no_folder(self, split, tmp_path):
        with pytest.raises(UsageError, match="cannot write"):
            write(split.proto, tmp_path / "none" / "o.onnx", source=split)


class TestCopy:
    def test_one_file(self, plain, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        assert copy(plain, target) == plain.bytes
        assert target.read_bytes() == plain.path.read_bytes()
        assert names(target.parent) == ["o.onnx"]

    def test_bytes_that_a_serializer_would_order_anew(self, tmp_path):
        content = model().SerializeToString() + b"\x08\x08"
        (tmp_path / "m.onnx").write_bytes(content)
        copy(load(tmp_path / "m.onnx"), tmp_path / "o.onnx")
        assert (tmp_path / "o.onnx").read_bytes() == content

    def test_data_goes_along(self, split, tmp_path):
        target = tmp_path / "out" / "o.onnx"
        assert copy(split, target) == split.bytes
        assert names(target.parent) == ["deep/v.bin", "o.onnx", "w.bin"]
        assert load(target).sha256 == split.sha256
        assert np.array_equal(answer(target), answer(split.path))
        copy(split, target)  # the same files again are no conflict
        assert load(target).sha256 == split.sha256

    def test_data_is_shared_within_a_folder(self, split):
        target = split.path.with_name("o.onnx")
        copy(split, target)
        assert names(target.parent) == ["deep/v.bin", "m.onnx", "o.onnx", "w.bin"]
        assert load(target).sha256 == split.sha256

    def test_other_data_of_that_name_is_kept(self, split, tmp_path):
        (tmp_path / "out" / "w.bin").write_bytes(b"somebody's")
        with pytest.raises(UsageError, match="not the model's data"):
            copy(split, tmp_path / "out" / "o.onnx")
        assert names(tmp_path / "out") == ["w.bin"]
        assert (tmp_path / "out" / "w.bin").read_bytes() == b"somebody's"

    def test_out_of_a_blob_cache(self, tmp_path):
        blobs, shown, out = (tmp_path / n for n in ("blobs", "shown", "out"))
        for folder in (blobs, shown, out):
            folder.mkdir()
        save(blobs / "0a", model(external("m.data")))
        (blobs / "1b").write_bytes(WEIGHT.tobytes())
        (shown / "m.onnx").symlink_to("../blobs/0a")
        (shown / "m.data").symlink_to("../blobs/1b")
        source = load(shown / "m.onnx")
        copy(source, out / "o.onnx")
        assert load(out / "o.onnx").sha256 == source.sha256
        assert not (out / "m.data").is_symlink()
        with pytest.raises(UsageError, match="leads out"):
            copy(source, shown / "o.onnx")  # would be a model that cannot reach its data
        write(source.proto, shown / "o.onnx", source=source)
        assert np.array_equal(answer(shown / "o.onnx"), answer(source.path))

    def test_broken(self, split, tmp_path, monkeypatch):
        def full(source, target):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", full)
        with pytest.raises(UsageError, match="No space left"):
            copy(split, tmp_path / "out" / "o.onnx")
        assert list((tmp_path / "out").iterdir()) == []


class TestText:
    def test_whole(self, tmp_path):
        write_text(tmp_path / "plan.json", "\u00e9\n")
        assert (tmp_path / "plan.json").read_bytes() == b"\xc3\xa9\n"
        write_text(tmp_path / "plan.json", "new\n")
        assert (tmp_path / "plan.json").read_text() == "new\n"
        assert names(tmp_path) == ["plan.json"]

    def test_not_at_all(self, tmp_path, monkeypatch):
        (tmp_path / "plan.json").write_text("old")

        def broken(old, new):
            raise OSError(errno.EIO, "I/O error")

        monkeypatch.setattr(os, "replace", broken)
        with pytest.raises(UsageError, match="I/O error"):
            write_text(tmp_path / "plan.json", "new")
        assert names(tmp_path) == ["plan.json"]
        assert (tmp_path / "plan.json").read_text() == "old"

    def test_devices_are_written_not_replaced(self, tmp_path):
        write_text(pathlib.Path(os.devnull), "text")
        assert not pathlib.Path(os.devnull).is_file()

    @pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no device that is full")
    def test_a_device_that_is_full(self):
        with pytest.raises(UsageError, match="cannot write /dev/full: No space left"):
            write_text(pathlib.Path("/dev/full"), "text")

    def test_a_folder(self, tmp_path):
        with pytest.raises(UsageError, match="cannot write"):
            write_text(tmp_path, "text")
