"""Which metadata survive: an allow-list, rebuilt. Raw blocks carry previews of the unprotected picture."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ExifTags, Image

_KEPT = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_LONGEST = 2000  # characters of one text; a preview hidden in a text field does not fit


@dataclass(frozen=True)
class Metadata:
    """What is written into the protected file. orientation: 1 to 8, to be baked into the pixels, never written."""

    icc: bytes | None = None
    exif: bytes | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()


def metadata(im: Image.Image, data: bytes) -> Metadata:
    """Read the allowed metadata of a loaded picture; unreadable EXIF counts as none."""
    notes = []
    if b"jumdc2pa" in data:
        notes.append("content credentials (C2PA) removed: any change of the pixels breaks them")
    icc = im.info.get("icc_profile") or None
    try:
        old = im.getexif()
        if ExifTags.Base.GPSInfo in old:
            notes.append("GPS position removed")
        jpeg, tiff = im.format in ("JPEG", "MPO"), im.format == "TIFF"
        if (jpeg and old.get_ifd(ExifTags.IFD.IFD1)) or (tiff and ExifTags.Base.SubIFDs in old):
            notes.append("embedded preview removed: it shows the unprotected picture")
        new = Image.Exif()
        for tag in _KEPT:
            if isinstance(text := old.get(tag), str) and text.strip("\0 "):
                # the bytes as they were: Pillow reads them as Latin-1, and would write "?" for all that is not ASCII
                new[tag] = text.strip("\0 ")[:_LONGEST].encode("latin-1", "replace")
        taken = old.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        if isinstance(taken, str):
            new.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken[:_LONGEST]
        orientation = old.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises nearly anything, and is no reason to lose the picture
        return Metadata(icc, None, 1, (*notes, "unreadable EXIF removed"))
    turned = orientation if orientation in range(1, 9) else 1
    return Metadata(icc, new.tobytes() if len(new) or taken else None, turned, tuple(notes))
