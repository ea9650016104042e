"""Pictures of any depth."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from limits import limited

from xpnet.core.errors import DataError
from xpnet.data.pictures import read_picture

LEVELS = np.linspace(0.0, 1.0, 64).reshape(8, 8)
DEPTHS = {  # levels as a file holds them
    "bytes": np.rint(LEVELS * 255).astype(np.uint8),
    "floats to 1": LEVELS.astype(np.float32),
    "floats a little beyond": (LEVELS * 1.04 - 0.02).astype(np.float32),
    "floats to 255": (LEVELS * 255).astype(np.float32),
    "floats to 65535": (LEVELS * 65535).astype(np.float32),
    "16 bits": (LEVELS * 65535).astype(np.uint16),
    "32 bits to 255": np.rint(LEVELS * 255).astype(np.int32),
    "32 bits to 65535": (LEVELS * 65535).astype(np.int32),
    "32 bits": (LEVELS * (2**31 - 1)).astype(np.int32),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_pictures_of_any_depth(tmp_path, depth):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(DEPTHS[depth]).save(tmp_path / "a.tiff")
    pixels, _ = read_picture(tmp_path / "a.tiff", (8, 8), invert=False)
    assert np.abs(pixels - 255.0 * LEVELS).max() <= (6 if "beyond" in depth else 1)


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("a.tiff", "a.png"):
        image.fromarray((LEVELS * 255).astype(np.uint16)).save(tmp_path / name)
        assert read_picture(tmp_path / name, (8, 8), invert=False)[0].max() <= 1


@pytest.mark.parametrize("level", [np.nan, np.inf, -1.0, 1e12])
def test_levels_in_no_range(tmp_path, level):
    image = pytest.importorskip("PIL.Image")
    levels = LEVELS.astype(np.float32)
    levels[3, 3] = level
    image.fromarray(levels).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="a.tiff: its levels of grey go from .* to .*: make them 0 to 255"):
        read_picture(tmp_path / "a.tiff", (8, 8))


def png(width, height, rows=b"", *, depth=1, color=0):
    """A PNG file of a size, with the given rows (of which most may be missing)."""
    chunks = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(content)) + kind + content
        chunks += struct.pack(">I", zlib.crc32(kind + content))
    return chunks


@pytest.mark.parametrize("size", [(13_000, 13_000), (1, 2**26), (2**31 - 1, 2**31 - 1)], ids=str)
def test_a_picture_is_bounded_before_it_is_decoded(tmp_path, size):
    pytest.importorskip("PIL")
    path = tmp_path / "a.png"
    rows = bytes(13_000 * 1626) if size == (13_000, 13_000) else b""  # of a file of 21 kB
    path.write_bytes(png(*size, rows))
    with limited(memory=2**26), pytest.raises(DataError, match="pixels, and 50000000 can be read|exceeds limit of"):
        read_picture(path, (8, 8))


def test_a_piece_of_a_picture_is_bounded_by_its_file(tmp_path):
    """Pillow reads what the length of a chunk claims, and a file allocates what is read."""
    pytest.importorskip("PIL")
    content = png(8, 8, bytes(16))
    start = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + struct.pack(">I", 2**31 - 1) + content[start + 4 :])
    with limited(memory=2**26):
        assert not read_picture(tmp_path / "a.png", (8, 8))[0].any()


def test_memory_of_a_large_picture(tmp_path):
    """16 bytes a pixel, at the most."""
    pytest.importorskip("PIL")
    (tmp_path / "a.png").write_bytes(png(4000, 4000, bytes(4000 * 16_001), depth=8, color=6))
    with limited(memory=17 * 4000 * 4000):
        read_picture(tmp_path / "a.png", (8, 8))


def test_only_pictures_are_opened(tmp_path):
    """Pillow would start Ghostscript for the first, from the PATH."""
    pytest.importorskip("PIL")
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", b"<svg></svg>"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match="a.png is no picture in PNG, JPEG, WEBP, GIF, BMP, TIFF or PPM"):
            read_picture(tmp_path / "a.png", (8, 8))


def test_warnings_of_pillow_are_not_shown(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("L", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    with pytest.warns(UserWarning, match="Corrupt EXIF"), image.open(tmp_path / "a.jpg"):
        pass
    assert read_picture(tmp_path / "a.jpg", (8, 8))[0].shape == (8, 8)


def test_transparent_parts_are_white(tmp_path):
    image = pytest.importorskip("PIL.Image")
    picture = image.new("LA", (8, 8), (0, 0))
    picture.putpixel((3, 3), (0, 255))
    for mode in ("LA", "RGBA"):
        picture.convert(mode).save(tmp_path / "a.png")
        pixels, inverted = read_picture(tmp_path / "a.png", (8, 8))
        assert inverted
        assert pixels[3, 3] == pixels.sum() == 255
