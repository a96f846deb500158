"""Reading a source file: a file too large for its image is refused, and so is one modified while it is read."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import pixels_of, write_image
from pack_images.errors import DecodeError
from pack_images.reading import _checked, read
from pack_images.settings import Pixels
from test_decode import frame_header, noise, png_of, saved

HOW = Pixels(size=(8, 8))
CHANGED = "^changed while it was read$"


def grown(path: Path, data: bytes, size: int) -> Path:
    """Write a sparse file of `size` bytes that begins with `data`."""
    path.write_bytes(data)
    os.truncate(path, size)
    return path


# --- size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not an image that Pillow knows", id="zeros"),
        pytest.param(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video: not packed", id="a video"),
        pytest.param(b"PK\3\4", "an archive: not packed", id="an archive"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "EPS|PostScript", id="EPS"),
        pytest.param(saved(noise(8, 8), "PNG"), "too many for a picture of 8x8: expected 268,437,504", id="PNG"),
        pytest.param(saved(noise(8, 8), "JPEG"), "too many for a picture of 8x8", id="JPEG"),
        pytest.param(saved(noise(8, 8), "TIFF"), "too many for a picture of 8x8", id="TIFF"),
        pytest.param(saved(noise(8, 8), "WEBP"), "too many for a picture of any size", id="WebP"),
        pytest.param(
            png_of((60_000, 60_000), 8, 0, b""), "60000x60000 is more than|more than 178956970", id="PNG bomb"
        ),
        pytest.param(
            frame_header(saved(noise(8, 8), "JPEG"), width=60_000, height=60_000), "more than 178956970", id="JPEG bomb"
        ),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 1 << 30) + b"iCCP",
            "for a picture of any size",
            id="a huge PNG chunk",
        ),
    ],
)
def test_a_file_far_larger_than_its_image_is_refused_without_reading_it(
    tmp_path: Path, data: bytes, message: str
) -> None:
    """The file has 64 GiB, mostly a hole; reading it whole would exhaust memory."""
    path = grown(tmp_path / "x.png", data, 1 << 36)
    with pytest.raises(DecodeError, match=message) as error:
        read(str(path), HOW)
    assert "\n" not in str(error.value)


def test_a_large_image_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.bmp"
    Image.new("RGB", (2600, 2400)).save(path)
    assert path.stat().st_size > 16 << 20
    assert read(str(path), HOW)[0] == path.read_bytes()
    with pytest.raises(DecodeError, match="more than 1000 pixels; --max-pixels allows more"):
        read(str(path), Pixels(max_pixels=1000))


def test_an_image_with_megabytes_of_trailing_data_is_read(tmp_path: Path) -> None:
    path = grown(tmp_path / "x.png", saved(noise(8, 8), "PNG"), 17 << 20)
    assert len(read(str(path), HOW)[0]) == 17 << 20


def test_a_file_that_is_too_large_is_left_out_and_named(tmp_path, packing) -> None:
    write_image(tmp_path / "data/cat/good.png")
    hole = grown(tmp_path / "data/cat/x.png", b"", 1 << 36)
    summary = packing(tmp_path / "data", size=8)
    assert summary.rows == 1
    assert list(summary.skipped) == [(str(hole), "not an image that Pillow knows")]


# --- writes


@pytest.fixture
def opened(tmp_path: Path):
    """(path, descriptor, status, content) of a file that was read and is not yet checked for changes."""
    path = write_image(tmp_path / "x.png")
    descriptor = os.open(path, os.O_RDONLY)
    yield path, descriptor, os.fstat(descriptor), path.read_bytes()
    os.close(descriptor)


MARK = 7  # stamp of a file unchanged for a while; 0 means the clock may be too coarse to tell


def changed_at(descriptor: int) -> int:
    """Time of the last change of the inode (ctime), in nanoseconds."""
    return os.fstat(descriptor).st_ctime_ns


def rewritten(path: Path, status: os.stat_result) -> None:
    """Overwrite the file in place and restore its mtime."""
    with open(path, "r+b") as file:
        file.write(os.urandom(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("mark", [0, MARK], ids=["young", "old"])
def test_an_unchanged_file_is_accepted_and_keeps_its_stamp(opened, mark) -> None:
    _, descriptor, status, content = opened
    assert _checked(descriptor, status, content, mark) == mark


def test_a_write_that_keeps_size_and_mtime_is_detected(opened) -> None:
    path, descriptor, status, content = opened
    while changed_at(descriptor) == status.st_ctime_ns:  # repeat until a coarse clock has advanced
        rewritten(path, status)
    with pytest.raises(DecodeError, match=CHANGED):
        _checked(descriptor, status, content, MARK)


def test_a_write_within_one_tick_of_a_coarse_clock_is_detected(opened) -> None:
    """Size and all times are equal; only the content differs."""
    path, descriptor, status, content = opened
    rewritten(path, status)
    with pytest.raises(DecodeError, match=CHANGED):
        _checked(descriptor, os.fstat(descriptor), content, 0)


@pytest.mark.parametrize("size", [-1, 1], ids=["shorter", "longer"])
def test_a_changed_length_is_detected(opened, size) -> None:
    path, descriptor, status, content = opened
    os.truncate(path, len(content) + size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DecodeError, match=CHANGED):
        _checked(descriptor, status, content, MARK)


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o640), lambda path: path.rename(f"{path}.moved")])
def test_a_changed_mode_or_name_is_not_a_write(opened, change) -> None:
    path, descriptor, status, content = opened
    while changed_at(descriptor) == status.st_ctime_ns:
        change(path)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    assert _checked(descriptor, status, content, MARK) == 0


def test_read_returns_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = write_image(tmp_path / "x.png")
    assert read(str(path), HOW) == (path.read_bytes(), 0)  # no stamp yet: it was written a moment ago
    assert np.array_equal(np.asarray(Image.open(path)), pixels_of("x.png"))


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(DecodeError, match=re.escape("cannot be read (not a regular file)")):
        read(str(tmp_path / "x.png"), HOW)
