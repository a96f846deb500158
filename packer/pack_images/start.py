"""The entry point of the command `pack-images`."""

from __future__ import annotations

from h5split.start import start


def pack_images() -> int:
    """Run `pack-images`."""
    return start("pack-images", "pack_images.cli")
