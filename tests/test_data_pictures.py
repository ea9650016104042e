"""Pictures of any depth, and folders of them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from limits import limited

from xpnet.commands import predict, train
from xpnet.core.errors import DataError
from xpnet.data import load_named
from xpnet.data.pictures import read_digit, read_picture

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
    for read in (lambda: read_picture(path, (8, 8)), lambda: read_digit(path, 28)):
        with limited(memory=2**26), pytest.raises(DataError, match="pixels, and 50000000 can be read"):
            read()


def test_a_piece_of_a_picture_is_bounded_by_its_file(tmp_path):
    """Pillow reads what the length of a chunk claims, and a file allocates what is read."""
    pytest.importorskip("PIL")
    content = png(8, 8, bytes(16))
    start = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + struct.pack(">I", 2**31 - 1) + content[start + 4 :])
    with limited(memory=2**26):
        assert not read_picture(tmp_path / "a.png", (8, 8))[0].any()


def test_memory_of_a_large_picture(tmp_path):
    """16 bytes a pixel at the most, in colour 19."""
    pytest.importorskip("PIL")
    (tmp_path / "a.png").write_bytes(png(4000, 4000, bytes(4000 * 16_001), depth=8, color=6))
    with limited(memory=17 * 4000 * 4000):
        read_picture(tmp_path / "a.png", (8, 8))
    with limited(memory=20 * 4000 * 4000), pytest.raises(DataError, match="a.png: there is no digit in it"):
        read_digit(tmp_path / "a.png", 28)


def test_only_pictures_are_opened(tmp_path):
    """Pillow would start Ghostscript for the first, from the PATH."""
    pytest.importorskip("PIL")
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", b"<svg></svg>"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match="a.png is no picture in PNG, JPEG, WEBP, GIF, BMP, TIFF or PPM"):
            read_picture(tmp_path / "a.png", (8, 8))
        with pytest.raises(DataError, match="a.png is no picture in PNG"):
            read_digit(tmp_path / "a.png", 28)


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


def picture_folder(root, parts=("",), sizes=((20, 12), (40, 24))):
    """Pictures of two classes, a bright left and a bright right half."""
    Image = pytest.importorskip("PIL.Image")
    for part in parts:
        for name in ("left", "right"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(6):
                height, width = sizes[number % len(sizes)]
                pixels = np.zeros((height, width), np.uint8)
                half = slice(1, width // 2) if name == "left" else slice(width // 2, width - 1)
                pixels[1:-1, half] = 200 + number
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_folders_of_pictures(tmp_path):
    """A folder is a class; pictures are of the first one's size."""
    data = load_named(str(picture_folder(tmp_path / "a")), None)[0]
    assert data.class_names == ("left", "right")
    assert data.x_train.shape == (10, 20, 12)
    assert data.x_test.shape == (2, 20, 12)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        brighter = x[:, :, 6:].mean(axis=(1, 2)) > x[:, :, :6].mean(axis=(1, 2))
        np.testing.assert_array_equal(brighter, y == 1)
    divided = load_named(str(picture_folder(tmp_path / "b", ("train", "test"), ((300, 150),))), None)[0]
    assert divided.x_train.shape == divided.x_test.shape == (12, 64, 32)
    assert divided.notes == ("pictures are grey, light on dark, 64 x 32",)


def test_folders_that_are_no_classes(tmp_path):
    root = picture_folder(tmp_path / "a")
    (root / "left" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0.png is no picture"):
        load_named(str(root), None)
    one = picture_folder(tmp_path / "b")
    (one / "left").rename(tmp_path / "left")
    with pytest.raises(
        DataError, match=r"must have a folder of pictures for each of two or more classes, and has \['right'\]"
    ):
        load_named(str(one), None)


def test_training_on_folders_of_pictures(run, tmp_path):
    """The command trains on them, and reads one of them right."""
    root = picture_folder(tmp_path / "a")
    words = ("--epochs", "60", "--hidden", "20", "--quiet")
    assert run(train, "--dataset", root, *words, "--out", tmp_path / "run")[0] == 0
    code, out, _ = run(predict, tmp_path / "run", root / "left" / "1.png", root / "right" / "0.png")
    assert (code, [line.split("\t")[1] for line in out.splitlines()]) == (0, ["left", "right"])
