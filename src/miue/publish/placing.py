"""Where a picture that came back lies in the one that was published: the whole of it, scaled, or a part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

ALIKE = 0.9  # correlation of brightness from which two pictures are the same
NAMED = 0.6  # the same for the whole picture where the name agrees: flat ones lose most of it in a codec
SURE = 0.97  # from which the whole picture counts as the place, and no scaled part is looked for
EXACT = 0.999  # the same for a part that was not scaled
SMOOTH = 0.003  # likeness that scaling feigns where a codec smoothed the picture, as filters do
SCALES = 9  # tried for a part that was scaled
COARSE = 96  # longest side at which parts are searched
THIN = 8  # pixels of a side that is not halved any more
FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR, Image.Resampling.BOX)


@dataclass(frozen=True)
class Place:
    """A box of the published picture, and the size that it came back with. Linear in the picture."""

    box: tuple[float | int, float | int, float | int, float | int]
    """Left, upper, right, lower, in pixels of the published picture."""
    size: tuple[int, int]
    """Width, height."""
    filter: Image.Resampling
    whole: bool

    @property
    def scale(self) -> float:
        """Pixels that came back for one that was published, along a side."""
        return self.size[0] / (self.box[2] - self.box[0])

    def __call__(self, pixels: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h2 w2 c"]:
        """The picture, or its noise, as it would come back if nothing else was done."""
        height, width = pixels.shape[:2]
        if self.whole and self.size == (width, height):
            return pixels
        parts = (Image.fromarray(pixels[..., c].astype(np.float32)) for c in range(pixels.shape[2]))
        return np.stack([np.asarray(part.resize(self.size, self.filter, box=self.box)) for part in parts], -1)


def placed(
    published: UInt8[np.ndarray, "h w c"], back: UInt8[np.ndarray, "h2 w2 c2"], named: bool = False
) -> Place | None:
    """Where `back` lies in `published`; None if they are different pictures.

    The whole is tried where the sides have the same ratio, a part at its own scale where it fits, and then a part at
    several scales from the smallest at which it fits to 1, by normalised cross-correlation. Turned and mirrored
    pictures are not recognised. named: whether the names of both agree.
    """
    height, width = published.shape[:2]
    size, mine, theirs = (back.shape[1], back.shape[0]), light(published), light(back)
    whole = Place((0, 0, width, height), size, FILTERS[0], True)
    places = [whole] if abs(size[0] / width - size[1] / height) * max(width, height) <= 1.5 else []
    if size != (width, height) and size[0] <= width and size[1] <= height:
        places.append(_cut(mine, theirs))
    if all(_alike(place, mine, theirs) < (SURE if place.whole else EXACT) for place in places):
        places += [part] if (part := _part(mine, theirs)) else []
    scaled = {place: not place.whole and place.scale != 1 for place in places}
    best = max(places, key=lambda place: _alike(place, mine, theirs) - SMOOTH * scaled[place], default=None)
    if best is None or _alike(best, mine, theirs) < (NAMED if named and best.whole else ALIKE):
        return None
    return _sharpest(best, mine, theirs)


def light(pixels: UInt8[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w"]:
    """The mean over channels."""
    return pixels.astype(np.float32).mean(2)


def correlation(a: Shaped[np.ndarray, "*shape"], b: Shaped[np.ndarray, "*shape"]) -> float:
    """Pearson's correlation of two arrays; 1 for two that are equal and constant, else 0 if one is constant."""
    x, y = (v.astype(np.float64).ravel() - v.mean(dtype=np.float64) for v in (a, b))
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else float(np.array_equal(a, b))


def _alike(place: Place, mine: np.ndarray, theirs: np.ndarray) -> float:
    return correlation(place(mine[..., None])[..., 0], theirs)


def _sharpest(place: Place, mine: np.ndarray, theirs: np.ndarray) -> Place:
    """The place with the filter of scaling that fits best."""
    if place.scale == 1:
        return place
    tried = [Place(place.box, place.size, each, place.whole) for each in FILTERS]
    return min(tried, key=lambda each: float(np.square(each(mine[..., None])[..., 0] - theirs).mean()))


def _cut(mine: np.ndarray, theirs: np.ndarray) -> Place:
    """The best box of whole pixels for a part that was not scaled."""
    left, top = _corner(mine, theirs)
    height, width = theirs.shape
    return Place((left, top, left + width, top + height), (width, height), FILTERS[0], False)


def _corner(mine: np.ndarray, theirs: np.ndarray) -> tuple[int, int]:
    """Left and upper edge of that box: searched in halved pictures, and then around it in whole ones."""
    from skimage.feature import match_template  # here: only parts need it

    if max(mine.shape) <= COARSE or min(theirs.shape) < 2 * THIN:
        match = match_template(mine, theirs)
        top, left = np.unravel_index(int(match.argmax()), match.shape)
        return int(left), int(top)
    at = _corner(_halved(mine), _halved(theirs))
    height, width = theirs.shape
    lefts, tops = (
        sorted({min(max(2 * edge + step, 0), most) for step in range(-2, 3)})
        for edge, most in zip(at, (mine.shape[1] - width, mine.shape[0] - height), strict=True)
    )
    return max(product(lefts, tops), key=lambda at: correlation(mine[at[1] :, at[0] :][:height, :width], theirs))


def _halved(x: np.ndarray) -> np.ndarray:
    height, width = (side // 2 for side in x.shape)
    return x[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))


def _part(mine: np.ndarray, theirs: np.ndarray) -> Place | None:
    """The best box: first coarsely at several scales, then by whole pixels around it."""
    from skimage.feature import match_template  # here: only parts need it

    (height, width), (h, w) = mine.shape, theirs.shape
    least = max(h / height, w / width)
    steps = {least * (1 / least) ** (i / (SCALES - 1)) for i in range(SCALES)} if least < 1 else {least}
    best, place = -1.0, None
    for scale in sorted(steps):
        shrink = min(COARSE / max(height, width), 1.0)
        small = _scaled(mine, shrink, shrink)
        sides = [
            min(max(int(side / scale * shrink + 0.5), 4), full) for side, full in zip((h, w), small.shape, strict=True)
        ]
        template = _to(theirs, sides[1], sides[0])
        if template.std() < 1e-3 or small.std() < 1e-3:
            continue
        match = match_template(small, template)
        y, x = np.unravel_index(int(match.argmax()), match.shape)
        if match[y, x] > best:
            best, place = float(match[y, x]), (scale, x / shrink, y / shrink, 1 / shrink)
    return _refined(mine, theirs, *place) if place else None


def _refined(mine: np.ndarray, theirs: np.ndarray, scale: float, x: float, y: float, reach: float) -> Place:
    (height, width), (h, w) = mine.shape, theirs.shape
    across, down = min(w / scale, width), min(h / scale, height)
    span = range(-int(reach + 1), int(reach + 1) + 1)
    lefts = sorted({min(max(int(x) + step, 0), width - across) for step in span})
    tops = sorted({min(max(int(y) + step, 0), height - down) for step in span})
    places = (
        Place((left, top, left + across, top + down), (w, h), FILTERS[0], False) for left, top in product(lefts, tops)
    )
    return max(places, key=lambda place: _alike(place, mine, theirs))


def _scaled(x: np.ndarray, down: float, across: float) -> np.ndarray:
    return _to(x, max(int(x.shape[1] * across + 0.5), 1), max(int(x.shape[0] * down + 0.5), 1))


def _to(x: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(x.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
