"""Plain JPEG files take a short way through the decoder: it must give what Pillow's reader gives, errors included."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from making import encoded, pixels
from miue.data import formats
from miue.data.picture import Rules, Unfit, decode

EXIF = Image.Exif()
EXIF[0x0112] = 6  # orientation

PLAIN = {
    "quality 75": {},
    "quality 95": {"quality": 95},
    "coarse colours": {"subsampling": 2},
    "full colours": {"subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
}
OTHER = {
    "progressive": {"progressive": True},
    "rotated": {"exif": EXIF},
    "a comment": {"comment": b"words"},
    "a profile": {"icc_profile": bytes(200)},
    "xmp": {"xmp": b"<x/>"},
}


def outcome(data: bytes, rules: Rules) -> object:
    """All that is known of a file after decoding."""
    try:
        picture = decode(data, rules, True, "a.jpg")
    except Unfit as unfit:
        return unfit.status, unfit.reason
    return picture.digest, picture.meta


def both(data: bytes, rules: Rules = Rules()) -> tuple[object, object]:  # noqa: B008 - frozen
    """The outcome of the short way, and of Pillow's reader alone."""
    short = outcome(data, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "plain_jpeg", lambda _: None)
        return short, outcome(data, rules)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_plain_files_take_the_short_way_to_the_same_picture(mode: str, options):
    data = encoded(pixels(3, 40, 24, mode), "JPEG", **options)
    assert formats.plain_jpeg(data) == (mode, (40, 24))
    short, whole = both(data)
    assert short == whole and len(str(short)) > 64
    assert both(data, Rules(max_pixels=900)) == (("skipped", "more than 900 pixels (max_pixels)"),) * 2


@pytest.mark.parametrize("options", OTHER.values(), ids=OTHER)
def test_files_with_more_than_pixels_do_not(options):
    data = encoded(pixels(3, 40, 24), "JPEG", **options)
    assert formats.plain_jpeg(data) is None
    assert len(set(map(repr, both(data)))) == 1


def test_content_credentials_are_noted_wherever_they_lie():
    data = encoded(pixels(3), "JPEG") + b"jumdc2pa"
    short, whole = both(data)
    assert short == whole and "content credentials" in str(short)


def test_a_size_that_is_only_claimed_is_not_allocated():
    data = bytearray(encoded(pixels(3, 40, 24), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff" * 4
    short, whole = both(bytes(data))
    assert short == whole == ("skipped", "far more pixels than Pillow opens")


@pytest.mark.parametrize("kind", ["cut", "changed", "longer"])
def test_damaged_files_end_alike(kind: str):
    rng, whole = np.random.default_rng(0), encoded(pixels(3, 24, 24), "JPEG")
    failed = 0
    for _ in range(250):
        data = bytearray(whole)
        at = int(rng.integers(2, len(data)))
        if kind == "cut":
            del data[at:]
        elif kind == "changed":
            data[at] = int(rng.integers(256))
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 4)))
        first, second = both(bytes(data))
        assert first == second
        failed += first[0] == "failed"  # pyright: ignore[reportIndexIssue]
    assert failed > 20
