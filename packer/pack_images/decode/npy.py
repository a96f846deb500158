"""Arrays in files: .npy, and .npz with one array. Headings are checked before anything is read; no pickles."""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, Any

import numpy as np

from pack_images.decode.guards import check_bytes, check_pixels
from pack_images.decode.samples import Samples, samples_of
from pack_images.errors import DecodeError, reason
from pack_images.settings import Pixels

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_ENDING = ".npy"
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(data: bytes, how: Pixels) -> Samples | None:
    """Return the array (H, W) or (H, W, C) in a file; None if the file is neither .npy nor .npz.

    Raises:
        DecodeError: It is damaged or too large, or holds no picture.
    """
    try:
        if data.startswith(_NPY):
            return _array(io.BytesIO(data), len(data), how)
        if not data.startswith(_ZIP):
            return None
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if len(names) != 1 or not names[0].endswith(_ENDING):
                raise DecodeError(f"expected an .npz file of one array, found {len(names)} files in it")
            with archive.open(names[0]) as file:
                return _array(file, archive.getinfo(names[0]).file_size, how)
    except DecodeError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise unrelated types on damaged files
        raise DecodeError(f"a damaged file of arrays ({reason(error)[:200]})") from error


def _array(file: IO[bytes], size: int, how: Pixels) -> Samples:
    """Read an array behind its heading."""
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise DecodeError(f"expected an array of .npy version 1.0 or 2.0, found {version[0]}.{version[1]}")
    shape, is_fortran, dtype = _READERS[version](file)
    _check(shape, dtype, how)
    nbytes = math.prod(shape) * dtype.itemsize
    if size - file.tell() != nbytes:
        raise DecodeError(f"{size - file.tell():,} bytes for an array of {dtype} {shape}: expected {nbytes:,}")
    array = np.frombuffer(file.read(nbytes), dtype).reshape(shape, order="F" if is_fortran else "C")
    return samples_of(array)


def _check(shape: tuple[int, ...], dtype: np.dtype[Any], how: Pixels) -> None:
    if dtype.hasobject or dtype.kind not in "buif":
        raise DecodeError(f"expected integers or floats, found {dtype}")
    if len(shape) not in (2, 3) or 0 in shape:
        raise DecodeError(f"expected an array (H, W) or (H, W, C), found shape {shape}")
    check_pixels(shape[1], shape[0], how)
    check_bytes(math.prod(shape) * dtype.itemsize, how)
