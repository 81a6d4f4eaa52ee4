"""Decoded pictures. Only this module opens or encodes an image file."""

from __future__ import annotations

import hashlib
import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Int16, Integer, UInt8
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from miue.core.errors import UserError
from miue.data import formats, tiff
from miue.data.metadata import Metadata, metadata
from miue.data.unread import raw_name, unread

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SEVERAL = {"TIFF": "pages", "MPO": "a second view or a gain map behind a JPEG", "HEIF": "a burst or a sequence"}
_OTHERS = "the others would stay clean; --frames first publishes the first alone"
_NO_PROFILE = "colour profile left out: it is damaged, or of other colours than the picture"


class Unfit(Exception):
    """A file that cannot be protected, with the status and the reason for the manifest."""

    def __init__(self, status: Literal["skipped", "failed"], reason: str) -> None:
        super().__init__(reason)
        self.status: Literal["skipped", "failed"] = status
        self.reason = reason


@dataclass(frozen=True)
class Rules:
    """Settings for decoding, the same in scan, read and write. max_pixels: limit of width times height."""

    max_pixels: int = 50_000_000
    frames: Literal["refuse", "first"] = "refuse"

    def __post_init__(self) -> None:
        check_frames(self.frames)


def check_frames(frames: str) -> None:
    """Raise UserError unless this is an answer to pictures with several frames."""
    if frames not in ("refuse", "first"):
        raise UserError(f"frames {frames!r} is unknown; allowed: refuse, first")


ANY_SIZE = 2**40  # pixels: no limit for published pictures, which were accepted once


@dataclass(frozen=True)
class Picture:
    """An upright picture of 8 bits. pixels: UInt8[h w c], c = 1 or 3; alpha is never changed."""

    pixels: UInt8[np.ndarray, "h w c"]
    alpha: UInt8[np.ndarray, "h w"] | None = None
    meta: Metadata = field(default_factory=Metadata)

    @property
    def mode(self) -> str:
        return ("L" if self.pixels.shape[2] == 1 else "RGB") + ("" if self.alpha is None else "A")

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def array(self) -> UInt8[np.ndarray, "h w c2"]:
        """Colour and alpha in one array."""
        return self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over mode, size and pixels: equal for every lossless encoding of the same picture."""
        w, h = self.size
        digest = hashlib.sha256(f"{self.mode} {w}x{h}\n".encode())
        digest.update(np.ascontiguousarray(self.array).data)
        return digest.hexdigest()

    def plus(self, delta: Int16[np.ndarray, "c2 h w"]) -> Picture:
        """A copy with grey levels added, clamped to 0..255. Alpha stays. A grey picture gets the mean over channels."""
        change = np.moveaxis(delta, 0, 2)
        if self.pixels.shape[2] == 1 and change.shape[2] == 3:
            change = mean_of_colours(change)
        total = self.pixels + change
        return replace(self, pixels=np.clip(total, 0, 255, out=total).astype(np.uint8))

    def same_alpha(self, other: Picture) -> bool:
        """True if both have equal alpha. No alpha equals full alpha, because WebP drops full alpha."""
        mine, yours = (np.full(1, 255) if p.alpha is None else p.alpha for p in (self, other))
        return bool((mine == yours).all())

    def minus(self, other: Picture) -> Int16[np.ndarray, "c h w"]:
        """The change of every value from `other`. A grey picture written as RGB counts as one channel."""
        mine = self.pixels
        if other.pixels.shape[2] == 1 and bool((mine == mine[..., :1]).all()):
            mine = mine[..., :1]
        return np.moveaxis(np.subtract(mine, other.pixels, dtype=np.int16), 2, 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings: size and damage are checked here. Enter it only in the main thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


def decode(payload: bytes | np.ndarray, rules: Rules, expected: bool = True, name: str = "") -> Picture:
    """Decode a payload completely. Raises Unfit if it cannot be protected.

    expected: whether it claims to be a picture. name: the name of its file.
    """
    if isinstance(payload, np.ndarray):
        return _from_array(payload, Metadata(), rules)
    try:
        if (quick := _quick(payload, rules)) is not None:
            return quick
        with Image.open(io.BytesIO(payload), formats=formats.readers(payload)) as im:
            return _decode(im, payload, rules, name)
    except Unfit:
        raise
    except UnidentifiedImageError:
        raise Unfit(*unread(payload, name, expected)) from None
    except Image.DecompressionBombError:
        raise Unfit("skipped", "far more pixels than Pillow opens") from None
    except Exception as error:  # damaged files may raise any error, and one bad file must not end the run
        what = formats.heif(payload) or formats.reader(payload)
        raise Unfit("failed", f"cannot be decoded as {what}: {' '.join(str(error).split())[:120]}") from None


def _quick(data: bytes, rules: Rules) -> Picture | None:
    """The picture of a plain JPEG; None if it is none, or is damaged, which Pillow's reader tells."""
    if (plain := formats.plain_jpeg(data)) is None or b"jumdc2pa" in data:
        return None
    mode, size = plain
    _check_size(*size, rules)
    try:
        return _from_array(_array(Image.frombytes(mode, size, data, "jpeg", mode, "")), Metadata(), rules)
    except ValueError:
        return None


def _array(im: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """The same as np.asarray, but quicker for small pictures."""
    return np.frombuffer(im.tobytes(), np.uint8).reshape(im.height, im.width, -1)


def _decode(im: Image.Image, data: bytes, rules: Rules, name: str) -> Picture:
    _check_size(im.width, im.height, rules)
    if im.format == "TIFF" and (reason := raw_name(name) or tiff.reason(data, len(im.getbands()))):
        raise Unfit("skipped", reason)
    several = getattr(im, "n_frames", 1) > 1
    if several and rules.frames == "refuse":
        kind = _SEVERAL.get(im.format or "", "animation")
        raise Unfit("skipped", f"more than one picture in the file ({kind}): {_OTHERS}")
    if im.mode.startswith("I") or formats.bits(data, im.format or "") > 8:
        raise Unfit("skipped", tiff.DEEP)
    if im.mode == "1":
        raise Unfit("skipped", "black and white (1 bit): there is no room for a small change")
    im.load()
    meta = metadata(im, data)
    if several:
        meta = replace(meta, notes=(*meta.notes, "only the first of several frames is published"))
    if im.mode == "CMYK":
        im, meta = _from_cmyk(im, meta)
    if im.mode in ("P", "PA"):
        im = im.convert("RGBA" if im.has_transparency_data else "RGB")
    elif im.mode in ("L", "RGB") and im.has_transparency_data:
        im = im.convert("LA" if im.mode == "L" else "RGBA")
    if im.mode not in ("L", "LA", "RGB", "RGBA"):
        raise Unfit("skipped", f"colour mode {im.mode} cannot be written without loss: convert it to RGB first")
    if meta.icc and meta.icc[16:20] != (b"GRAY" if im.mode in ("L", "LA") else b"RGB "):
        meta = replace(meta, icc=None, notes=(*meta.notes, _NO_PROFILE))
    if meta.orientation in _TURNS:
        im = im.transpose(_TURNS[meta.orientation])
    return _from_array(_array(im), meta, rules)


def _check_size(width: int, height: int, rules: Rules) -> None:
    if width * height > rules.max_pixels:
        raise Unfit("skipped", f"more than {rules.max_pixels} pixels (max_pixels)")


def _from_cmyk(im: Image.Image, meta: Metadata) -> tuple[Image.Image, Metadata]:
    profile = meta.icc
    meta = replace(meta, icc=None, notes=(*meta.notes, "CMYK converted to RGB: the budget holds for the RGB picture"))
    if not profile:
        return im.convert("RGB"), meta
    try:
        srgb = ImageCms.createProfile("sRGB")
        if converted := ImageCms.profileToProfile(im, io.BytesIO(profile), srgb, outputMode="RGB"):
            return converted, meta
    except (ImageCms.PyCMSError, OSError):  # a damaged profile, or one of other colours: use Pillow's own conversion
        pass
    return im.convert("RGB"), replace(meta, notes=(*meta.notes, _NO_PROFILE))


def _from_array(array: UInt8[np.ndarray, "h w *c"], meta: Metadata, rules: Rules) -> Picture:
    """A picture from an array [h w], or [h w c] with 1 to 4 channels: grey, grey and alpha, RGB, RGBA."""
    _check_size(array.shape[1], array.shape[0], rules)
    array = np.ascontiguousarray(array if array.ndim == 3 else array[..., None])
    if array.shape[2] in (1, 3):
        return Picture(array, None, meta)
    return Picture(np.ascontiguousarray(array[..., :-1]), np.ascontiguousarray(array[..., -1]), meta)


def kept_profile(picture: Picture, form: Literal["png", "webp"]) -> bytes | None:
    """The colour profile to write; None for grey WebP, which becomes RGB, so that a grey profile would be invalid."""
    return None if form == "webp" and picture.pixels.shape[2] == 1 else picture.meta.icc


def encode(picture: Picture, form: Literal["png", "webp"], xmp: bytes | None = None) -> bytes:
    """The bytes of a lossless file with the allowed metadata. WebP has no grey, so grey pictures become RGB."""
    array = picture.array
    im = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    extra: dict[str, Any] = {"icc_profile": kept_profile(picture, form), "exif": picture.meta.exif}
    if xmp and form == "webp":
        extra["xmp"] = xmp
    elif xmp:  # `xmp` of Pillow's writer does nothing for PNG
        extra["pnginfo"] = PngImagePlugin.PngInfo()
        extra["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    # without `exact` WebP changes colours under alpha 0, and common loaders pass these colours to a network
    webp = {"lossless": True, "exact": True, "quality": 60}
    # run lengths only: the search for repeats takes eight times as long, and noise has hardly any
    lossless = webp if form == "webp" else {"compress_type": zlib.Z_RLE}
    file = io.BytesIO()
    im.save(file, form.upper(), **lossless, **{k: v for k, v in extra.items() if v})
    return file.getvalue()


def mean_of_colours(delta: Integer[np.ndarray, "h w c"]) -> Int16[np.ndarray, "h w _"]:
    """The mean over three channels, as one, rounded towards zero, so that no budget is exceeded."""
    total = delta.sum(2, keepdims=True, dtype=np.int16)
    return np.sign(total) * (np.abs(total) // 3)
