"""Metadata that are published: an allow-list, rebuilt. Raw blocks can contain previews of the clean picture."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ExifTags, Image

from miue.data import formats
from miue.data.rights import NOTHING, Reservation, reservation

_KEPT = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_TOLD = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow looks for tags, beside those of TIFF."""
_LONGEST = 2000  # characters in a text: too few for a preview hidden in a text field


@dataclass(frozen=True)
class Metadata:
    """Metadata for the protected file. orientation: 1 to 8; it is applied to the pixels and not written."""

    icc: bytes | None = None
    exif: bytes | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()
    reservation: Reservation = NOTHING
    artist: str = ""
    copyright: str = ""

    @property
    def reserved(self) -> str:
        """Its statement on data mining, as a key of the PLUS vocabulary (`data.rights`)."""
        return self.reservation.key


def metadata(im: Image.Image, data: bytes) -> Metadata:
    """The allowed metadata of a loaded picture. Unreadable EXIF counts as none."""
    notes = []
    if formats.signed(data):
        notes.append("content credentials (C2PA) removed: any change of the pixels breaks them")
    icc = im.info.get("icc_profile") or None
    if not (_TOLD & im.info.keys() or hasattr(im, "tag_v2")):  # most pictures of a data set: reading no tags takes long
        return Metadata(icc, notes=tuple(notes))
    own = reservation(xmp if isinstance(xmp := im.info.get("xmp"), bytes) else None)
    if not own.readable:
        notes.append("unreadable XMP removed")
    if own.key.startswith("DMI-PROHIBITED"):
        notes.append(f"a reservation of its own ({own.key}), which is kept")
    texts = dict[int, str]()
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
                # keep the original bytes: Pillow reads them as Latin-1, and would write "?" for all but ASCII
                new[tag] = content = text.strip("\0 ")[:_LONGEST].encode("latin-1", "replace")
                texts[tag] = _real(content)
        date = old.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        if isinstance(date, str):
            new.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date[:_LONGEST]
        orientation = old.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF may raise any error, and is no reason to lose the picture
        return Metadata(icc, None, 1, (*notes, "unreadable EXIF removed"), own)
    valid = orientation if orientation in range(1, 9) else 1
    exif = new.tobytes() if len(new) or date else None
    names = (texts.get(tag, "") for tag in (ExifTags.Base.Artist, ExifTags.Base.Copyright))
    return Metadata(icc, exif, valid, tuple(notes), own, *names)


def _real(text: bytes) -> str:
    """A text of EXIF, whose encoding is not told: UTF-8 if it is that, else Latin-1."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
