"""Damaged packs, the inputs of `fuzz_packs.py`.

HDF5 stores a checksum with each piece of its metadata, so random damage gets no further than the checksum test. Most
damage here is therefore sealed: the checksum of every changed piece is corrected, and the library reads its content.
"""

from __future__ import annotations

import hashlib
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import xxhash

from h5split import FormatError, PackedImages
from h5split.file.hdf5.metadata import lookup3
from h5split.file.hdf5.seal import SEAL, SEAL_AT, SEAL_MARK, seal_checksum
from h5split.file.losses import LOSSES
from h5split.file.sealing import Tables, images_offset, seal

_SIGNATURE = re.compile(rb"\x89HDF\r\n\x1a\n|OHDR|OCHK|FRHP|FHDB|FHIB|BTHD|BTLF|BTIN|SMTB|SMLI|FSHD|FSSE")
_LONGEST = 1200  # largest piece whose end is searched for, in bytes
_NUMBERS = [0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63]


@dataclass(frozen=True)
class Piece:
    """Metadata from `start` to `stop` and its checksum: behind it, or inside it, where it counts as 0."""

    start: int
    stop: int
    checksum_at: int

    def checksum(self, content: bytes | bytearray) -> bytes:
        """Return the correct checksum of these bytes."""
        data = bytearray(content[self.start : self.stop])
        if self.checksum_at < self.stop:
            at = self.checksum_at - self.start
            data[at : at + 4] = bytes(4)
        return lookup3(bytes(data)).to_bytes(4, "little")

    def is_sealed(self, content: bytes | bytearray) -> bool:
        return content[self.checksum_at : self.checksum_at + 4] == self.checksum(content)

    def touches(self, first: int, stop: int) -> bool:
        return self.start < stop and first < max(self.stop, self.checksum_at + 4)


@dataclass(frozen=True)
class Base:
    """A file to damage.

    Attributes:
        content: The bytes of the file.
        pieces: Metadata with checksums.
        pixels: Positions of `images`; empty for a file that is refused.
        tables: Positions of the other data sets.
        metadata: All other positions that hold something.
    """

    content: bytes
    pieces: tuple[Piece, ...]
    pixels: range
    tables: tuple[range, ...]
    metadata: tuple[int, ...]


@dataclass(frozen=True)
class Damaged:
    """A damaged file.

    Attributes:
        content: The bytes of the file.
        how: Description of the damage and its base, for people.
        where: The damaged part. If it is `pixels` or `tables`, only that part differs, and `verify` must find it.
    """

    content: bytes
    how: str
    where: str


# --- base files ------------------------------------------------------------------------------------------------------


def bases() -> dict[str, Base]:
    """Return small packs of several kinds, and files that are refused for HDF5 features other than plain data sets."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in _MAKERS.items():
            path = Path(folder, f"{len(found)}.h5")
            make(path)
            found[name] = base_of(path)
    return found


def base_of(path: Path) -> Base:
    """Read a file and find the positions of its parts."""
    content = path.read_bytes()
    pixels, tables = range(0), ()
    with suppress(FormatError):
        header = PackedImages(path).header
        pixels = range(header.images.offset, header.images.offset + header.images.nbytes)
        tables = tuple(range(at.offset, at.offset + at.nbytes) for at in header.tables.values() if at.nbytes)
    plain = {at for part in (pixels, *tables) for at in part}
    metadata = [at for at in range(len(content)) if at not in plain and any(content[max(0, at - 8) : at + 9])]
    return Base(content, tuple(_pieces(content)), pixels, tables, tuple(metadata))


def write_small(
    path: Path,
    classes: int = 1,
    rows: int = 3,
    columns: int = 0,
    skipped: int = 0,
    note: str = "",
    losses: int = 0,
    dtype: str = "u1",
    image: tuple[int, int, int] = (64, 64, 1),
) -> Path:
    """Write a pack of a few kilobytes with correct checksums.

    An image has 4096 bytes, a page: the file stays small, and HDF5 does not align smaller data.
    """
    raw = hashlib.shake_256(b"pixels").digest(rows * 4096)
    pixels = np.frombuffer(raw, dtype).reshape(rows, *image)
    tables = Tables(
        labels=np.arange(rows, dtype=np.int32) % classes,
        class_names=[f"class {number:03}" for number in range(classes)],
        filenames=[f"data/{row}.png" for row in range(rows)],
        columns={name: [f"{name} {row}" for row in range(rows)] for name in ["source", *map(str, range(columns))]},
        digests=np.stack([np.frombuffer(hashlib.sha256(image).digest(), np.uint8) for image in pixels]),
        checksums=np.array([xxhash.xxh3_64_intdigest(image.tobytes()) for image in pixels], np.uint64),
        settings={"fit": "stretch", "note": note},
        packed_by={"pack-images": "0.1.0"},
        skipped=[(f"data/bad-{number}.png", "no image") for number in range(skipped)],
        losses=np.array([(row, 1 << row % 4, 16, 64, 16) for row in range(losses)], LOSSES),
    )
    with open(path, "w+b") as file:
        seal(file.fileno(), pixels.shape, tables, pixels.dtype)
        file.seek(images_offset(4096))
        file.write(pixels.tobytes())
    return path


def write_copy(path: Path, libver: str | tuple[str, str], **options: object) -> None:
    """Write the arrays of a small pack to a file that h5py makes with this libver."""
    source = write_small(path.with_suffix(".source"), 2)
    with h5py.File(source, "r") as source, h5py.File(path, "w", libver=libver, **options) as copy:
        for name in ("columns", "skipped"):
            copy.create_group(name, track_order="track_order" in options)
        for name in _DATA_SETS.split():
            copy.create_dataset(name, data=source[name])
        for name, value in source.attrs.items():
            copy.attrs.create(name, value)


def changed(
    change: Callable[[h5py.File], object], libver: str | tuple[str, str] = ("v108", "v110")
) -> Callable[[Path], None]:
    """Return a function that writes a pack and changes it through HDF5."""

    def make(path: Path) -> None:
        with h5py.File(write_small(path, 2, columns=1, skipped=1), "r+", libver=libver) as file:
            change(file)

    return make


def replaced(name: str, **options: object) -> Callable[[Path], None]:
    """Return a function that writes a pack in which a data set is created again with these options."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return changed(change)


def _linked(link: object) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        file.move("labels", "elsewhere")
        file["labels"] = link

    return changed(change)


def _virtual(file: h5py.File) -> None:
    file.move("labels", "elsewhere")
    layout = h5py.VirtualLayout((3,), "i4")
    layout[:] = h5py.VirtualSource(file["elsewhere"])
    file.create_virtual_dataset("labels", layout)


def _committed(file: h5py.File) -> None:
    del file["labels"]
    file["type"] = np.dtype("i4")
    file.create_dataset("labels", data=np.zeros(3, "i4"), dtype=file["type"])


def _again(file: h5py.File) -> None:
    labels = file["labels"][()]
    del file["labels"]
    file["labels"] = labels


def _crowded(file: h5py.File) -> None:
    for number in range(40):
        file["columns"].create_dataset(f"a longer name, so that there are more blocks than one {number}", data=_TEXTS)
        file.attrs[f"attribute {number}"] = "a longer value, so that there are more blocks than one"


_TEXTS = np.array([b"a", b"b", b"c"])
_DATA_SETS = "images labels class_names filenames columns/source digests checksums skipped/filenames skipped/reasons"
_COMPOUND = np.dtype([("a", "i4"), ("b", "S3", 2), ("c", "f8")])

_MAKERS: dict[str, Callable[[Path], object]] = {
    "one class": write_small,
    "columns and skipped": lambda path: write_small(path, classes=3, rows=5, columns=2, skipped=3),
    "losses": lambda path: write_small(path, classes=2, rows=6, losses=4),
    "uint16": lambda path: write_small(path, classes=2, columns=1, dtype="<u2", image=(32, 32, 2)),
    "float32": lambda path: write_small(path, classes=2, rows=4, dtype="<f4", image=(16, 16, 4)),
    "bands of uint8": lambda path: write_small(path, classes=2, image=(16, 32, 8)),
    "many classes": lambda path: write_small(path, classes=40),
    "dense links": lambda path: write_small(path, classes=2, rows=2, columns=12),
    "huge attribute": lambda path: write_small(path, note="x" * 66_000),
    "dense attributes": changed(lambda file: file.attrs.update({str(number): number for number in range(9)})),
    "indirect blocks": changed(_crowded),
    "before 1.8": lambda path: write_copy(path, "earliest"),
    "older labels": changed(_again, "earliest"),
    "latest": lambda path: write_copy(path, "latest"),
    "pages": lambda path: write_copy(path, "latest", fs_strategy="page", fs_persist=True, fs_page_size=512),
    "order": lambda path: write_copy(path, ("v108", "v108"), track_order=True),
    "user block": lambda path: write_copy(path, ("v108", "v108"), userblock_size=512),
    "chunked": replaced("labels", data=np.zeros(3, "i4"), chunks=(1,), maxshape=(None,)),
    "filtered": replaced("labels", data=np.zeros(3, "i4"), compression="gzip", shuffle=True, fletcher32=True),
    "external": replaced("labels", shape=3, dtype="i4", external=[("nowhere", 0, 12)]),
    "virtual": changed(_virtual),
    "soft link": _linked(h5py.SoftLink("/elsewhere")),
    "external link": _linked(h5py.ExternalLink("nowhere.h5", "/elsewhere")),
    "variable length": replaced("filenames", data=["a", "b", "c"], dtype=h5py.string_dtype()),
    "compound": replaced("filenames", data=np.zeros(3, _COMPOUND), dtype=_COMPOUND),
    "enumeration": replaced("labels", data=np.zeros(3, "i4"), dtype=h5py.enum_dtype({"a": 0, "b": 1}, "i4")),
    "references": replaced("filenames", shape=3, dtype=h5py.ref_dtype),
    "committed type": changed(_committed),
    "uint16 in version 1": replaced("images", data=np.zeros((3, 64, 64, 1), "<u2")),
}


# --- structure of the metadata ---------------------------------------------------------------------------------------


def _pieces(content: bytes) -> Iterator[Piece]:
    """Find all pieces with a correct checksum by trying every place where their kind stores it."""
    for found in _SIGNATURE.finditer(content):
        piece = next((piece for piece in _guesses(content, found.start()) if piece.is_sealed(content)), None)
        if piece is not None:
            yield piece


def _guesses(content: bytes | bytearray, start: int) -> Iterator[Piece]:
    kind = bytes(content[start : start + 4])
    if kind == b"OHDR":
        yield from _object_header(content, start)
    elif kind == b"FHDB":
        for size in (2**power for power in range(8, 17)):
            yield from (Piece(start, start + size, start + 13 + width) for width in range(1, 9))
    else:
        for stop in range(start + 6, min(start + _LONGEST, len(content) - 3)):
            yield Piece(start, stop, stop)


def _object_header(content: bytes | bytearray, start: int) -> Iterator[Piece]:
    """Return the first piece of an object header, which states its own length."""
    flags = content[start + 5]
    at = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    stop = at + width + int.from_bytes(content[at : at + width], "little")
    if stop + 4 <= len(content):
        yield Piece(start, stop, stop)


def sealed_again(content: bytearray, pieces: tuple[Piece, ...], spans: list[tuple[int, int]]) -> None:
    """Correct the checksums of all pieces that overlap the changed spans."""
    for piece in pieces:
        if not any(piece.touches(*span) for span in spans):
            continue
        if content[piece.start : piece.start + 4] == b"OHDR":
            piece = next(_object_header(content, piece.start), piece)
        if piece.checksum_at + 4 <= len(content):
            content[piece.checksum_at : piece.checksum_at + 4] = piece.checksum(content)


def _correct_seal(content: bytearray) -> None:
    """Correct the checksum of the seal, if there is one, so that a reader trusts it."""
    mark, start, count, _ = SEAL.unpack_from(content.ljust(SEAL_AT + SEAL.size), SEAL_AT)
    if mark == SEAL_MARK:
        SEAL.pack_into(content, SEAL_AT, mark, start, count, seal_checksum(content, content[start : start + count]))


# --- damage ----------------------------------------------------------------------------------------------------------


def damaged(files: dict[str, Base], seed: int) -> Damaged:
    """Return a damaged file determined by `seed` alone."""
    random_ = random.Random(seed)
    name = random_.choice(list(files))
    base = files[name]
    kind = random_.choices(["sealed", "blind", "spliced", "cut", "plain"], [70, 6, 12, 4, 8])[0]
    if kind == "plain" and not base.pixels:
        kind = "sealed"
    content, where = bytearray(base.content), "metadata"
    if kind == "sealed":
        sealed_again(
            content, base.pieces, [_write_number(content, base, random_) for _ in range(random_.randint(1, 3))]
        )
    elif kind == "blind":
        for _ in range(random_.randint(1, 8)):
            content[random_.choice(base.metadata)] = random_.randrange(256)
    elif kind == "spliced":
        other = random_.choice([base, files[random_.choice(list(files))]])
        sealed_again(content, base.pieces, [_splice(content, base, other, random_)])
    elif kind == "cut":
        _cut(content, random_)
    else:
        where = random_.choice(["pixels", "tables"])
        part = base.pixels if where == "pixels" else random_.choice(base.tables)
        for at in random_.sample(part, min(len(part), random_.randint(1, 3))):
            content[at] ^= 1 << random_.randrange(8)
    if kind in ("sealed", "spliced") and random_.random() < 0.5:
        _correct_seal(content)
    return Damaged(bytes(content), f"{name}, {kind} {where}", where)


def _write_number(content: bytearray, base: Base, random_: random.Random) -> tuple[int, int]:
    """Overwrite a few bytes of metadata and return their span."""
    if base.pieces and random_.random() < 0.9:
        piece = random_.choice(base.pieces)
        at = random_.randrange(piece.start, piece.stop)
    else:
        at = random_.choice(base.metadata)
    width = random_.choice([1, 1, 1, 1, 2, 4, 8])
    old = int.from_bytes(content[at : at + width], "little")
    value = random_.choice(
        [
            random_.getrandbits(8 * width),
            old ^ 1 << random_.randrange(8 * width),
            old + random_.choice([-1, 1]),
            random_.choice(_NUMBERS),
            random_.choice([piece.start for piece in base.pieces] or base.metadata),
            len(content) + random_.choice([-8, -1, 0, 1, 8]),
            random_.randrange(0x20),  # below the number of message types
        ]
    )
    content[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    return at, at + width


def _splice(content: bytearray, base: Base, other: Base, random_: random.Random) -> tuple[int, int]:
    """Copy bytes of metadata over others, perhaps of another kind, and return their span."""
    starts = [piece.start for piece in other.pieces]
    source = random_.choice(starts if starts and random_.random() < 0.3 else other.metadata)
    starts = [piece.start for piece in base.pieces]
    at = random_.choice(starts if starts and random_.random() < 0.3 else base.metadata)
    part = other.content[source : source + random_.choice([2, 4, 8, 16, 32, 64, 128, 512])]
    part = part[: len(content) - at]
    content[at : at + len(part)] = part
    return at, at + len(part)


def _cut(content: bytearray, random_: random.Random) -> None:
    """Remove bytes at the end of the file or within it."""
    at = random_.randrange(len(content))
    stop = random_.choice([len(content), at + random_.randint(1, 64)])
    if random_.random() < 0.5:
        del content[at:stop]
    else:
        content[at:at] = content[at:stop][:4096]
