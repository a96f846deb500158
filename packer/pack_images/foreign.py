"""Recognise files that are often kept among images but cannot be packed, and give advice on them.

The texts here are reasons: each says what a file is and what the user can do with it. Thumbnails and trash of operating
systems are ignored without a reason.
"""

from __future__ import annotations

_CONVERT = "not packed; convert it to JPEG or PNG first"
HEIC = "HEIC: not packed; pip install 'pack-images[heif]' packs it, or convert it to JPEG or PNG first"
_JPEG_XL = f"JPEG XL: {_CONVERT}"
_RAW = "camera RAW: not packed; develop it to JPEG, PNG or TIFF first"
_DRAWING = "not packed; render it to PNG first"
_VIDEO = "a video: not packed; save its frames as JPEG or PNG first"
_ARRAYS = "not packed; save each image as PNG or TIFF first"
_DICOM = "DICOM: not packed; give a function that decodes it as --decoder"
_NUMPY = "arrays: not packed; give --color all, which packs their values, one file an image"
_ARCHIVE = "an archive: not packed; unpack it first"
_HIGH_DYNAMIC_RANGE = f"OpenEXR or Radiance: {_CONVERT}"

# Thumbnails, trash and notes that operating systems leave in folders, in lower case.
_SYSTEM_NAMES = """
    __macosx, thumbs.db, ehthumbs.db, ehthumbs_vista.db, desktop.ini, $recycle.bin, recycler, system volume information,
    lost+found, @eadir, #recycle, #snapshot, @recycle, @recently-snapshot, @sharesnap, @tmp, @syno, @database,
    network trash folder, temporary items, thedummy.ds_store, __pycache__
"""
_IGNORED_NAMES = frozenset(name.strip() for name in _SYSTEM_NAMES.split(","))
_EXTENSIONS_BY_REASON = {
    HEIC: "heic heics heif heifs hif",
    _JPEG_XL: "jxl",
    f"JPEG XR: {_CONVERT}": "hdp jxr wdp",
    _RAW: "3fr ari arw cr2 cr3 crw dcr dcs dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef ptx raf raw rw2 rwl sr2 "
    "srf srw x3f",
    f"SVG: {_DRAWING}": "svg svgz",
    f"PostScript: {_DRAWING}": "ai eps epsf ps",
    f"PDF: {_DRAWING}": "pdf",
    f"a vector graphic: {_DRAWING}": "emf wmf cdr",
    f"a project of an image editor: {_CONVERT}": "afphoto clip kra ora psb xcf",
    _HIGH_DYNAMIC_RANGE: "exr hdr",
    f"a microscope's or scanner's format: {_CONVERT}": "czi lif lsm mrxs nd2 ndpi oib oif scn svs vsi",
    _VIDEO: "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv",
    _DICOM: "dcm dicom",
    f"NIfTI: {_ARRAYS}": "nii",
    f"FITS: {_ARRAYS}": "fit fits fts",
    f"arrays: {_ARRAYS}": "mat",
    _NUMPY: "npy npz",
    f"a table of records: {_ARRAYS}": "arrow lmdb parquet tfrecord tfrecords",
    _ARCHIVE: "7z bz2 gz rar tar tgz xz zip zst",
}
_REASON_BY_EXTENSION = {
    extension: reason for reason, extensions in _EXTENSIONS_BY_REASON.items() for extension in extensions.split()
}

_WEB_PAGE = "a web page, such as of a failed download: not packed; fetch the file again"
_SIGNATURES = (  # (offset, bytes at this offset, reason)
    (0, b"\xff\x0a", _JPEG_XL),
    (0, b"\0\0\0\x0cJXL ", _JPEG_XL),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIU\0", _RAW),
    (0, b"IIRO", _RAW),
    (0, b"FOVb", _RAW),
    (0, b"%PDF-", f"PDF: {_DRAWING}"),
    (0, b"%!PS", f"PostScript: {_DRAWING}"),
    (0, b"gimp xcf", f"a project of an image editor: {_CONVERT}"),
    (0, b"v/1\x01", _HIGH_DYNAMIC_RANGE),
    (0, b"#?RADIANCE", _HIGH_DYNAMIC_RANGE),
    (128, b"DICM", _DICOM),
    (0, b"SIMPLE  =", f"FITS: {_ARRAYS}"),
    (0, b"\x93NUMPY", _NUMPY),
    (0, b"\x1a\x45\xdf\xa3", _VIDEO),
    (8, b"AVI ", _VIDEO),
    (0, b"PK\x03\x04", _ARCHIVE),
    (0, b"\x1f\x8b", _ARCHIVE),
    (0, b"Rar!", _ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (257, b"ustar", _ARCHIVE),
    (0, b"version https://git-lfs", "a pointer of Git LFS: not packed; `git lfs pull` fetches the file itself"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BYTES_CHECKED = 1 << 10  # from the beginning of a file


def is_of_system(name: str) -> bool:
    """Return whether an operating system keeps thumbnails, trash or notes under this name."""
    return name.lower() in _IGNORED_NAMES


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is never looked at: it is hidden, or of an operating system."""
    return name.startswith(".") or is_of_system(name)


def by_extension(name: str) -> str | None:
    """Return the reason for a file by its extension; None if the extension is unknown."""
    return _REASON_BY_EXTENSION.get(name.rpartition(".")[2].lower()) if "." in name else None


def by_content(data: bytes) -> str | None:
    """Return the reason for a file by its first bytes; None if it is of no known kind."""
    start = data[:_BYTES_CHECKED]
    if start[4:8] == b"ftyp":
        return _by_brand(start)
    for at, mark, reason in _SIGNATURES:
        if start.startswith(mark, at):
            return reason
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return _WEB_PAGE
    if text.startswith((b"<svg", b"<?xml", b"<!--")) and b"<svg" in text:
        return f"SVG: {_DRAWING}"
    return None


def is_foreign(reason: str) -> bool:
    """Return whether a reason is one of this module."""
    return reason in _EXTENSIONS_BY_REASON


def _by_brand(start: bytes) -> str | None:
    """Return the reason for an ISO media container, used by HEIC, AVIF and videos. Its first box lists its brands."""
    length = int.from_bytes(start[:4])
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, min(length, len(start)), 4))]
    if any(brand in (b"avif", b"avis") for brand in brands):
        return None
    if brands[0] == b"crx ":
        return _RAW
    return HEIC if any(brand in _HEIC_BRANDS for brand in brands) else _VIDEO
