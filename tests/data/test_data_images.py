import numpy as np
import pytest
from PIL import Image

from onnxprune.data.load import load_samples
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError


def spec(*shape, dtype=np.float32):
    return InputSpec("x", np.dtype(dtype), shape)


def load(path, *specs, limit=100, seed=0):
    return load_samples(path, specs, limit=limit, seed=seed)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def colours(height=4, width=5, level=255):
    pixels = np.zeros((height, width, 3))
    pixels[..., 0] = level
    pixels[0, 0] = (0, 51, 102)
    return pixels


def test_channels_first_scaled_and_loudly_noted(tmp_path):
    save(tmp_path / "a.png", colours())
    samples = load(tmp_path, spec("n", 3, 4, 5))
    image = samples.entries[0]["x"]
    assert (image.shape, image.dtype, samples.stacked) == ((1, 3, 4, 5), np.float32, True)
    assert image[0, :, 0, 0].tolist() == pytest.approx([0, 0.2, 0.4])
    assert image[0, :, 3, 4].tolist() == [1, 0, 0]
    (note,) = samples.notes
    assert "RGB, channels first, scaled to [0, 1], without mean" in note
    assert "--loader" in note


def test_channels_last(tmp_path):
    save(tmp_path / "a.jpg", np.full((4, 5, 3), 255))
    samples = load(tmp_path, spec("n", 4, 5, 3, dtype=np.float16))
    assert samples.entries[0]["x"].shape == (1, 4, 5, 3)
    assert samples.entries[0]["x"].dtype == np.float16
    assert "channels last" in samples.notes[0]


def test_grey_from_colour_and_pixels_for_uint8(tmp_path):
    save(tmp_path / "a.png", np.full((4, 5, 3), 77))
    samples = load(tmp_path, spec("n", 1, 4, 5, dtype=np.uint8))
    assert (samples.entries[0]["x"] == 77).all()
    assert samples.entries[0]["x"].dtype == np.uint8
    assert "grey, channels first, pixels 0-255" in samples.notes[0]


def test_colour_from_grey_and_palette(tmp_path):
    save(tmp_path / "a.png", np.full((4, 5), 51))
    Image.fromarray(np.full((4, 5, 3), 51, np.uint8)).convert("P").save(tmp_path / "b.gif")
    for entry in load(tmp_path, spec("n", 3, 4, 5)).entries:
        assert entry["x"] == pytest.approx(np.full((1, 3, 4, 5), 0.2), abs=0.01)


def test_resized_to_the_inputs_size(tmp_path):
    save(tmp_path / "a.png", colours(40, 60))
    assert load(tmp_path, spec("n", 3, 8, 6)).entries[0]["x"].shape == (1, 3, 8, 6)
    assert load(tmp_path, spec("n", 8, 6, 3)).entries[0]["x"].shape == (1, 8, 6, 3)


def test_dynamic_sizes_are_the_images_own(tmp_path):
    save(tmp_path / "a.png", colours(6, 7))
    assert load(tmp_path, spec("n", 3, "h", None)).entries[0]["x"].shape == (1, 3, 6, 7)


def test_dynamic_sizes_need_equal_images(tmp_path):
    save(tmp_path / "a.png", colours(6, 7))
    save(tmp_path / "b.png", colours(7, 7))
    with pytest.raises(InputError, match=r"images differ in size \(a\.png, b\.png\)"):
        load(tmp_path, spec("n", 3, "h", "w"))


def test_turned_as_the_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert load(tmp_path, spec("n", 3, "h", "w")).entries[0]["x"].shape == (1, 3, 9, 4)


def test_folders_of_classes_and_limit(tmp_path):
    for k in range(3):
        save(tmp_path / "cat" / f"{k}.png", colours(level=k))
        save(tmp_path / "dog" / f"{k}.png", colours(level=100 + k))
    assert len(load(tmp_path, spec("n", 3, 4, 5))) == 6
    some = load(tmp_path, spec("n", 3, 4, 5), limit=2)
    assert len(some) == 2
    assert some.notes[1] == "took 2 of 6 samples at random (seed 0)"


def test_fixed_batch(tmp_path):
    for k in range(5):
        save(tmp_path / f"{k}.png", colours(level=k))
    samples = load(tmp_path, spec(2, 3, 4, 5), limit=1)
    assert samples.fixed_batch == 2
    assert [f["x"].shape for f in samples.feeds(range(len(samples)), 9)] == [(2, 3, 4, 5)]


@pytest.mark.parametrize(
    "wrong",
    [spec("n", 3), spec("n", 4, 8, 8), spec("n", None, 8, 8), spec("n", 3, 8, 8, dtype=int)],
)
def test_inputs_that_take_no_images(tmp_path, wrong):
    save(tmp_path / "a.png", colours())
    with pytest.raises(InputError, match=r"images cannot feed input 'x' \(.*use \.npz or --loader"):
        load(tmp_path, wrong)


def test_several_inputs(tmp_path):
    save(tmp_path / "a.png", colours())
    with pytest.raises(InputError, match="one input, this one has 'x', 'x'"):
        load(tmp_path, spec("n", 3, 4, 5), spec("n"))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no image"])
def test_unreadable_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read image .*a\.png: \S"):
        load(tmp_path, spec("n", 3, 4, 5))
