"""Decoding, against Pillow as the independent oracle."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageOps

from sketchbridge_preprocess import (
    ImageTooLarge,
    InvalidImage,
    Limits,
    PreprocessError,
    Size,
    TruncatedImage,
    UnsupportedFormat,
    decode,
    read_header,
)


def gradient(width: int, height: int) -> Any:
    """A picture in which every corner is different, so that flips and channel swaps show."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256], 2).astype(np.uint8)


def saved(picture: Pillow.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int, height: int) -> bytes:
    """A valid PNG of width x height black pixels in a few kilobytes; 1 bit a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_lossless_formats_decode_to_the_very_pixels(kind: str, mode: str) -> None:
    picture = Pillow.fromarray(gradient(37, 23)).convert(mode)
    assert np.array_equal(decode(saved(picture, kind)), np.asarray(picture.convert("RGB")))


def test_lossless_webp_decodes_to_the_very_pixels() -> None:
    picture = Pillow.fromarray(gradient(37, 23))
    assert np.array_equal(decode(saved(picture, "WEBP", lossless=True)), np.asarray(picture))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_decode_within_a_few_levels_of_pillow(kind: str) -> None:
    data = saved(Pillow.fromarray(gradient(64, 48)), kind, quality=90)
    theirs = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data) - theirs).mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_blended_over_white(kind: str) -> None:
    rgba = np.dstack([gradient(20, 10), np.linspace(0, 255, 200).reshape(10, 20).astype(np.uint8)])
    white = Pillow.new("RGBA", (20, 10), "white")
    expected = np.asarray(Pillow.alpha_composite(white, Pillow.fromarray(rgba)).convert("RGB")).astype(int)
    assert np.abs(decode(saved(Pillow.fromarray(rgba), kind, lossless=True, exact=True)) - expected).max() <= 1


def test_gray_with_alpha_is_blended_over_white() -> None:
    picture = Pillow.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8), "LA")
    assert decode(saved(picture, "PNG"))[0].tolist() == [[255] * 3, [10] * 3]


def test_sixteen_bit_samples_are_rounded_not_cut() -> None:
    levels = np.array([[0, 128, 129, 257, 65535, 65406, 65407]], np.uint16)
    assert decode(saved(Pillow.fromarray(levels), "PNG"))[0, :, 0].tolist() == [0, 0, 1, 1, 255, 254, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_applies_it(kind: str, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = saved(Pillow.fromarray(gradient(48, 32)), kind, exif=exif, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))).convert("RGB")).astype(int)
    ours = decode(data)
    assert ours.shape == upright.shape
    assert np.abs(ours - upright).mean() < 2


def test_cmyk_jpeg_keeps_its_colours() -> None:
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:, :16, 0] = 200
    rgb[:, 16:, 2] = 200
    data = saved(Pillow.fromarray(rgb).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data).astype(int) - rgb).max() < 24


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Pillow.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for kind in ("PNG", "WEBP"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert read_header(data).animated
        assert decode(data)[8, 8].tolist() == [255, 0, 0]


def test_a_jpeg_is_decoded_smaller_when_less_is_enough() -> None:
    data = saved(Pillow.fromarray(gradient(1600, 1200)), "JPEG")
    assert decode(data, enough=Size(256, 256)).shape == (600, 800, 3)
    assert decode(data).shape == (1200, 1600, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.98])
def test_a_file_cut_short_is_said_to_be_cut_short(kind: str, kept: float) -> None:
    data = saved(Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), kind)
    with pytest.raises(TruncatedImage, match="cut off"):
        decode(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", InvalidImage, "empty: 0 bytes"),
        (b"hello, I am no picture at all", UnsupportedFormat, "text, not a picture"),
        (b"GIF89a" + b"\0" * 100, UnsupportedFormat, "GIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedFormat, "SVG"),
        (b"II*\0" + b"\0" * 50, UnsupportedFormat, "TIFF"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 50, UnsupportedFormat, "HEIC"),
        (b"\0" * 1000, UnsupportedFormat, "begin with zeros"),
        (b"\x93\x01\x02\x03", UnsupportedFormat, "93 01 02 03"),
    ],
)
def test_what_is_no_picture_is_named_for_what_it_is(data: bytes, kind: type[InvalidImage], words: str) -> None:
    with pytest.raises(kind, match=words):
        decode(data)


def test_a_png_bomb_is_refused_by_its_header() -> None:
    bomb = bytearray(png_bomb(30_000, 30_000))
    assert len(bomb) < 1_000_000
    bomb[60:-60] = bytes(len(bomb) - 120)  # had it been decoded, it would be called damaged
    with pytest.raises(ImageTooLarge, match=r"30000x30000 = 900,000,000 pixels"):
        decode(bytes(bomb))


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(ImageTooLarge, match="200,000,000 bytes"):
        decode(bytes(200_000_000))


def test_limits_can_be_set() -> None:
    data = saved(Pillow.fromarray(gradient(20, 10)), "PNG")
    with pytest.raises(ImageTooLarge, match="at most 199"):
        decode(data, limits=Limits(max_pixels=199))
    assert decode(data, limits=Limits(max_pixels=200)).shape == (10, 20, 3)


def test_a_picture_without_pixels_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)
    empty = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IEND", b"")
    with pytest.raises(InvalidImage, match="0x0 pixels"):
        decode(empty)


def test_a_side_that_no_decoder_takes_is_said_to_be_too_long() -> None:
    with pytest.raises(ImageTooLarge, match="no side may be over 1,000,000"):
        decode(png_bomb(1_048_000, 1))


def test_an_unused_fourth_byte_of_a_bitmap_is_not_taken_for_transparency() -> None:
    pixels = b"".join(bytes((10 * i, 20 * i, 30 * i, 0)) for i in range(1, 5))
    header = struct.pack("<IiiHHIIiiII", 40, 2, -2, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    offset = 14 + len(header) + len(masks)
    file = struct.pack("<2sIII", b"BM", offset + len(pixels), 0, offset) + header + masks + pixels
    assert decode(file).reshape(-1, 3).tolist() == [[30 * i, 20 * i, 10 * i] for i in range(1, 5)]


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_pictures_converted_in_bands_have_no_seams(rows: int) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (rows, 3), np.uint16)
    assert np.array_equal(decode(saved(Pillow.fromarray(levels), "PNG"))[:, :, 1], np.round(levels / 257))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_gives_a_picture_or_a_clear_error_and_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]))
    whole = bytearray(saved(Pillow.fromarray(gradient(24, 16)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PreprocessError):
        image = decode(bytes(whole), limits=Limits(max_pixels=1_000_000))
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
