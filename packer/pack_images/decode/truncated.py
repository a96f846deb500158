"""Pictures that are cut short: keep what there is of them, if the user allows it.

Pillow has one switch for the whole process. It is on only while a file that has failed is decoded again, and only in
the main thread: in others, files fail, and `ExecutorPool.result` tries them once more in a main thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from PIL import ImageFile

from h5split.file.losses import TRUNCATED, Loss, with_kinds
from pack_images.decode.guards import is_main_thread
from pack_images.errors import DecodeError
from pack_images.settings import Pixels

_Decode = Callable[[bytes, Pixels], tuple[NDArray[Any], Loss | None]]


def decoded_in_part(decode: _Decode, data: bytes, how: Pixels, error: DecodeError) -> tuple[NDArray[Any], Loss | None]:
    """Decode what there is of a picture. Return the row, and what was lost.

    Args:
        decode: What failed.
        data: The bytes of the file.
        how: As for `decode`.
        error: Its error.

    Raises:
        DecodeError: Nothing can be decoded, or this is not the main thread.
    """
    if not is_main_thread():
        raise error
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        pixels, loss = decode(data, how)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    if (pixels == pixels[:1, :1]).all():  # cut short before its first pixel
        raise error
    return pixels, with_kinds(loss, TRUNCATED)
