"""Grey of more than 8 bits, 16-bit colour, alpha and huge pictures, against files written byte by byte and numpy."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features
from tiny_caltech import picture

from carryover.bench.cli import main
from carryover.bench.errors import UserError
from carryover.bench.features import decoding
from carryover.bench.features.decoding import Loader
from carryover.bench.features.transforms import Plain
from carryover.datasets import images
from carryover.datasets.images import read_image, split_of_files

RAMP = np.linspace(0, 65535, 13 * 7).astype(np.uint16).reshape(7, 13)  # (H, W)
GREY, GREY_ALPHA, RGB, RGBA = 0, 4, 2, 6  # colour types of PNG
SHORT, LONG = 3, 4  # types of TIFF entries
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # sample formats of TIFF


def write_png(path, samples, colour):
    """16-bit samples (H, W) or (H, W, channels), big end first, no filter, as the PNG specification lays them out."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_tiff(path, data, shape, bits, order="<", kind=UNSIGNED, black=0):
    """Grey in one strip, TIFF 6.0; ``black``: 0 where the value 0 is black, 1 where it is white."""
    height, width = shape
    entries = [
        (256, LONG, width), (257, LONG, height), (258, SHORT, bits), (259, SHORT, 1), (262, SHORT, 1 - black),
        (273, LONG, 8), (277, SHORT, 1), (278, LONG, height), (279, LONG, len(data)), (339, SHORT, kind),
    ]  # fmt: skip
    table = struct.pack(order + "H", len(entries))
    for tag, type_, value in entries:
        field = struct.pack(order + ("HH" if type_ == SHORT else "I"), *([value, 0] if type_ == SHORT else [value]))
        table += struct.pack(order + "HHI", tag, type_, 1) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    path.write_bytes(head + data + table + struct.pack(order + "I", 0))


def packed(values):
    """12 bits a sample, rows padded to bytes."""
    rows = [np.unpackbits(row.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 4:].ravel() for row in values]
    return b"".join(np.packbits(row).tobytes() for row in rows)


def grey(bytes_):
    return np.repeat(bytes_.astype(np.uint8)[..., None], 3, 2)


DEEP = {
    "grey.png": lambda p: write_png(p, RAMP, GREY),
    "little.tif": lambda p: write_tiff(p, RAMP.astype("<u2").tobytes(), RAMP.shape, 16),
    "big.tif": lambda p: write_tiff(p, RAMP.astype(">u2").tobytes(), RAMP.shape, 16, ">"),
    "inverted.tif": lambda p: write_tiff(p, (65535 - RAMP).astype("<u2").tobytes(), RAMP.shape, 16, black=1),
    "twelve.tif": lambda p: write_tiff(p, packed(RAMP >> 4), RAMP.shape, 12),
    "binary.pgm": lambda p: p.write_bytes(b"P5 13 7 65535\n" + RAMP.astype(">u2").tobytes()),
    "text.pgm": lambda p: p.write_text("P2 13 7 65535\n" + " ".join(map(str, RAMP.ravel()))),
}


@pytest.mark.parametrize("name", DEEP)
def test_sixteen_bit_grey_is_its_high_byte_from_black_to_white(tmp_path, name):
    DEEP[name](tmp_path / name)
    found = np.asarray(read_image(tmp_path / name))
    assert np.array_equal(found, grey(RAMP // 256))
    assert found.min() == 0 and found.max() == 255 and len(np.unique(found)) > 80


def test_grey_with_a_smaller_largest_value_is_scaled_by_it(tmp_path):
    values = RAMP // 64  # 0 to 1023
    (tmp_path / "ten.pgm").write_bytes(b"P5 13 7 1023\n" + values.astype(">u2").tobytes())
    expected = np.round(values / 1023 * 65535) // 256
    assert np.array_equal(np.asarray(read_image(tmp_path / "ten.pgm")), grey(expected))


def test_sixteen_bit_colour_and_alpha_are_high_bytes_too_and_alpha_is_dropped(tmp_path):
    colours = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], 2)
    alpha = np.full_like(RAMP, 300)[..., None]
    write_png(tmp_path / "rgb.png", colours, RGB)
    write_png(tmp_path / "rgba.png", np.concatenate([colours, alpha], 2), RGBA)
    write_png(tmp_path / "la.png", np.concatenate([RAMP[..., None], alpha], 2), GREY_ALPHA)
    for name in ("rgb.png", "rgba.png"):
        assert np.array_equal(np.asarray(read_image(tmp_path / name)), colours // 256)
    assert np.array_equal(np.asarray(read_image(tmp_path / "la.png")), grey(RAMP // 256))


def test_a_picture_of_8_bits_comes_back_from_16(tmp_path):
    bytes_ = np.asarray(picture(np.random.default_rng(0), 1).convert("L"))
    write_png(tmp_path / "wide.png", bytes_.astype(np.uint16) * 257, GREY)
    assert np.array_equal(np.asarray(read_image(tmp_path / "wide.png")), grey(bytes_))


NO_WHITE = {
    "whole.tif": lambda p: write_tiff(p, RAMP.astype("<i4").tobytes(), RAMP.shape, 32, kind=SIGNED),
    "signed.tif": lambda p: write_tiff(p, RAMP.astype("<i2").tobytes(), RAMP.shape, 16, kind=SIGNED),
    "float.tif": lambda p: write_tiff(p, (RAMP / 65535).astype("<f4").tobytes(), RAMP.shape, 32, kind=FLOAT),
    "float.pfm": lambda p: p.write_bytes(b"Pf\n13 7\n-1.0\n" + (RAMP / 65535).astype("<f4").tobytes()),
}


@pytest.mark.parametrize("name", NO_WHITE)
def test_numbers_without_a_white_of_their_own_are_refused_by_name(tmp_path, name):
    NO_WHITE[name](tmp_path / name)
    with pytest.raises(UserError, match="whose white is not defined") as caught:
        read_image(tmp_path / name, "mine")
    line = str(caught.value)
    assert line.startswith(f"mine: image '{tmp_path / name}' holds ") and "8 or 16 bits" in line


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pictures_of_8_bits_are_pillows_own_rgb(mode):
    image = picture(np.random.default_rng(0), 1).convert(mode)
    assert images.to_rgb(image).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("kind, ending", [("JPEG", "jfif"), ("AVIF", "avif"), ("PNG", ""), ("HEIF", "heic")])
def test_pictures_are_read_whatever_their_name(tmp_path, kind, ending):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    path = tmp_path / (f"a.{ending}" if ending else "a")
    made = picture(np.random.default_rng(0), 1, (64, 48))
    made.save(path, kind)
    off = np.asarray(read_image(path), float) - np.asarray(made)
    assert np.abs(off).mean() < 4


# ---- the largest picture that is read --------------------------------------------------------------------------------


@pytest.fixture
def bound():
    before = Image.MAX_IMAGE_PIXELS
    yield before
    Image.MAX_IMAGE_PIXELS = before


def test_a_picture_that_is_too_large_names_the_option_that_takes_it(tmp_path, bound, monkeypatch):
    picture(np.random.default_rng(0), 1, (60, 50)).save(tmp_path / "large.png")
    picture(np.random.default_rng(0), 1, (20, 20)).save(tmp_path / "small.png")
    monkeypatch.setattr(decoding, "LEAST", 0)
    split = split_of_files(tmp_path, ["large.png"], [0], dataset="mine")
    images.allow_pixels(2998)
    for loader in (Loader(0), Loader(1)):
        with pytest.raises(UserError, match="has 3000 pixels; expected at most 2998: .* --max-pixels 3000") as caught:
            list(loader.load(split, [Plain(lambda image: image)] if not loader.workers else [Plain(same)], 1))
        assert "large.png" in str(caught.value) and "\n" not in str(caught.value)
        loader.close()
    read_image(tmp_path / "small.png")
    images.allow_pixels(3000)
    for loader in (Loader(0), Loader(1)):
        (made,) = [torch.cat(parts, 1) for parts in loader.load(split, [Plain(same)], 1)]
        assert made.shape == (1, 1, 50, 60, 3)
        loader.close()


def same(image):
    return image


def test_the_option_reaches_a_whole_run(tmp_path, bound, capsys):
    for name in ("a", "b"):
        for i in range(5):
            (tmp_path / "mine" / name).mkdir(parents=True, exist_ok=True)
            picture(np.random.default_rng(i), i, (70, 60)).save(tmp_path / "mine" / name / f"{i}.png")
    flags = ["--datasets", f"folder:{tmp_path / 'mine'}", "--methods", "zs-clip", "--seeds", "1", "--shots", "1"]
    flags += ["--suite", "main", "--out", str(tmp_path / "out"), "--device", "cpu", "--jobs", "1"]
    assert main.main([*flags, "--max-pixels", "4000"]) != 0
    said = capsys.readouterr()
    assert "--max-pixels 4200" in said.out + said.err
    assert main.main([*flags, "--max-pixels", "4200"]) == 0


def test_a_bound_below_nothing_is_refused(capsys):
    assert main.main(["--max-pixels", "-1"]) == 2
    assert "--max-pixels -1: expected 0 or more" in capsys.readouterr().err
