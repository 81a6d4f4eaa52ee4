"""What came back: every file found again by name or by picture, and what is left of its noise."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from skimage import data as photographs

from miue import data
from miue.core.errors import UserError
from miue.core.run import Run
from miue.data.channel import check_channel, recoded
from miue.data.rights import Rights
from miue.publish.channels import jpeg_quality
from miue.publish.placing import placed
from miue.publish.returned import Comeback
from miue.workflows.add import add
from miue.workflows.job import Job
from miue.workflows.protect import carry_out
from miue.workflows.verify import returned

Change = Callable[[Image.Image], Image.Image]


def photos(root: Path) -> Path:
    """Six pictures of 96 x 80 from two photographs, in two classes."""
    for name, whole in (("cat", photographs.chelsea()), ("cup", photographs.coffee())):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(whole[60 * i : 60 * i + 80, 90 * i : 90 * i + 96]).save(root / name / f"{name}{i}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with pictures and their protected copy: coarse noise, which survives JPEG in part."""
    place = tmp_path_factory.mktemp("returned")
    job = Job(source=str(photos(place / "in")), out=place / "out", method="noise:cells=24", canvas=96)
    carry_out(job, Run(device_name="cpu"))
    return place


def sent(
    place: Path, to: Path, change: Change, form: str = "png", named: bool = True, source: str = "out", **o
) -> Path:
    """The pictures as they come back."""
    for i, path in enumerate(sorted((place / source).rglob("*.png"))):
        new = to / (path.relative_to(place / source).with_suffix(f".{form}") if named else f"img_{i}.{form}")
        new.parent.mkdir(parents=True, exist_ok=True)
        change(Image.open(path)).save(new, **o)
    return to


def as_it_is(im: Image.Image) -> Image.Image:
    return im


def half(im: Image.Image) -> Image.Image:
    return im.resize((im.width // 2, im.height // 2), Image.Resampling.LANCZOS)


def middle(im: Image.Image) -> Image.Image:
    return im.crop((8, 6, im.width - 7, im.height - 9))


def right(back: Comeback, place: Path) -> int:
    """Files that were found to be what they are."""
    paths = [path.relative_to(place / "out").as_posix() for path in sorted((place / "out").rglob("*.png"))]
    return sum(
        each.original
        == (paths[int(Path(each.path).stem[4:])] if "img_" in each.path else str(Path(each.path).with_suffix(".png")))
        for each in back.files
    )


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by picture"])
@pytest.mark.parametrize(
    ("change", "form", "options", "status", "least", "most", "channel"),
    [
        (as_it_is, "jpg", {"quality": 75}, "recoded", 0.5, 0.95, "jpeg:quality=75"),
        (as_it_is, "webp", {"quality": 80}, "recoded", 0.5, 0.95, "webp:quality=80"),
        (half, "png", {}, "resized", 0.75, 1.0, "resize:share=0.5"),
        (half, "jpg", {"quality": 60}, "resized", 0.3, 0.9, "resize:share=0.5+jpeg:quality=60"),
        (half, "webp", {"quality": 80}, "resized", 0.25, 0.9, "resize:share=0.5+webp:quality=80"),
        (middle, "png", {}, "cropped", 0.97, 1.03, ""),
    ],
    ids=["jpeg", "webp", "half", "half and jpeg", "half and webp", "crop"],
)
def test_files_are_found_and_what_is_left_is_measured(
    place: Path, tmp_path: Path, named, change, form, options, status, least, most, channel
):
    back = returned(sent(place, tmp_path / "back", change, form, named, **options), place / "out")
    assert dict(back.counts) == {status: 6} and right(back, place) == 6 and back.missing == 0
    assert {each.by for each in back.files} == {"name" if named else "picture"}
    assert back.channel == channel and not any(each.clean for each in back.files)
    assert back.alike == (6 if channel else 0) and back.changed == (6 if channel else back.changed)
    assert back.share is not None and least < back.share < most
    if channel:
        check_channel(channel)  # what is suggested can be evaluated


@pytest.mark.parametrize("quality", [0, 85], ids=["cropped", "cropped and jpeg"])
@pytest.mark.parametrize("side", [64, 224])
def test_a_part_that_was_not_scaled_is_placed_to_the_pixel(side: int, quality: int):
    """A few pixels less on one side or several are a crop, and not the whole at another size."""
    published = photographs.coffee()[40 : 40 + side, 60 : 60 + side]
    for k in range(1, 13):
        for left, top, less_right, less_below in ((k, 0, 0, 0), (k, k, k, k), (k, k // 2, 1, k), (0, 0, 0, k)):
            box = (left, top, side - less_right, side - less_below)
            part = Image.fromarray(published).crop(box)
            back = np.asarray(Image.open(io.BytesIO(jpeg(part, quality))) if quality else part)
            place = placed(published, back)
            assert place is not None and (place.box, place.whole) == (box, False)
            assert quality or np.array_equal(place(published.astype(np.float32)), back)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (90, 1), (2, 64), (91, 96)])
def test_odd_parts_of_flat_pictures_are_no_error(size: tuple[int, int]):
    """One value everywhere lies everywhere."""
    flat = np.full((96, 96, 3), 7, np.uint8)
    place = placed(flat, flat[: size[0], : size[1]])
    assert place is not None and place.size == size[::-1]
    assert placed(photographs.coffee()[:96, :96], flat[: size[0], : size[1]]) is None


def test_files_that_cannot_be_read_are_no_success(place: Path, tmp_path: Path):
    """A server that sends pages of errors, or half a picture, does not show what was published."""
    shutil.copytree(place / "out" / "cat", tmp_path / "back" / "cat")
    whole = returned(tmp_path / "back", place / "out")
    assert whole.ok and whole.missing == 3
    half_of = tmp_path / "back" / "cat" / "cat1.png"
    half_of.write_bytes(half_of.read_bytes()[:500])
    (tmp_path / "back" / "index.html").write_text("<html>404</html>")
    back = returned(tmp_path / "back", place / "out")
    assert dict(back.counts) == {"identical": 2, "no picture": 2} and back.missing == 4 and not back.ok
    assert [each.path for each in back.files if not each.ok] == ["cat/cat1.png"]
    (broken,) = (each for each in back.files if not each.ok)
    assert broken.original == "cat/cat1.png" and broken.reason
    shutil.rmtree(tmp_path / "back" / "cat")
    assert not returned(tmp_path / "back", place / "out").ok


def test_the_same_bytes_are_identical_and_the_same_pixels_have_all_the_noise(place: Path, tmp_path: Path):
    shutil.copytree(place / "out", tmp_path / "same")
    back = returned(tmp_path / "same", place / "out")
    assert dict(back.counts) == {"identical": 6} and back.share == 1 and all(each.ok for each in back.files)
    again = returned(sent(place, tmp_path / "again", as_it_is, compress_level=9), place / "out")
    assert dict(again.counts) == {"recoded": 6} and again.share == 1 and again.channel == ""


def test_clean_copies_are_found_exact_and_near(place: Path, tmp_path: Path):
    sent(place, tmp_path / "twins", as_it_is, "png", False, "in")
    sent(place, tmp_path / "twins", half, "jpg", False, "in", quality=80)
    sent(place, tmp_path / "twins" / "protected", as_it_is, "jpg", False, quality=90)
    back = returned(tmp_path / "twins", place / "out", twins=True)
    clean = {each.path for each in back.files if each.clean}
    assert clean == {f"img_{i}.{form}" for i in range(6) for form in ("png", "jpg")}
    assert {each.path for each in back.files if each.exact} == {f"img_{i}.png" for i in range(6)}
    assert right(back, place) == len(back.files) == 18


def test_pictures_that_were_added_are_measured_by_their_own_noise(place: Path, tmp_path: Path, run: Run):
    for name in ("out", "out.private", "in"):
        shutil.copytree(place / name, tmp_path / name)
    picture = Image.open(place / "in" / "cat" / "cat0.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    for name in ("cat", "cup"):
        (tmp_path / "new" / name).mkdir(parents=True)
        picture.rotate(0 if name == "cat" else 180).save(tmp_path / "new" / name / "later.png")
    add(tmp_path / "out", tmp_path / "new", run=run)
    back = returned(sent(tmp_path, tmp_path / "back", half), tmp_path / "out", run=run)
    assert back.missing == 0 and len(back.files) == 8
    assert all(each.status == "resized" and each.left is not None and each.left.share > 0.8 for each in back.files)


def test_originals_stand_in_for_a_perturbation_that_is_gone(place: Path, tmp_path: Path):
    for name in ("in", "out", "out.private"):
        shutil.copytree(place / name, tmp_path / name)
    back = sent(tmp_path, tmp_path / "back", as_it_is, "jpg", quality=75)
    known = returned(back, tmp_path / "out").share
    (path,) = data.private_of(tmp_path / "out").glob("perturbation-*")
    path.unlink()
    with pytest.raises(UserError, match="give the originals with --clean"):
        returned(back, tmp_path / "out")
    assert returned(back, tmp_path / "out", clean=tmp_path / "in").share == pytest.approx(known, abs=0.03)


def test_other_files_are_told_apart(place: Path, tmp_path: Path):
    back = tmp_path / "back"
    sent(place, back, as_it_is)
    (back / "index.html").write_text("<html></html>")
    Image.fromarray(photographs.astronaut()[:90, :90]).save(back / "cat" / "cat1.png")  # another picture of this name
    result = returned(back, place / "out")
    assert dict(result.counts) == {"recoded": 5, "not found": 1, "no picture": 1} and result.missing == 1
    assert [each.path for each in result.files if not each.ok] == ["cat/cat1.png"]
    with pytest.raises(UserError, match="no such file or folder"):
        returned(tmp_path / "nowhere", place / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        returned(tmp_path / "empty", place / "out")


def test_a_single_file_is_looked_at(place: Path, tmp_path: Path):
    back = sent(place, tmp_path / "back", as_it_is, "jpg", quality=75)
    result = returned(back / "cat" / "cat1.jpg", place / "out")
    assert [(each.path, each.status, each.original) for each in result.files] == [
        ("cat1.jpg", "recoded", "cat/cat1.png")
    ]
    assert result.missing == 5 and result.channel == "jpeg:quality=75"


def test_a_hub_gives_a_table(place: Path, tmp_path: Path):
    files = sorted((place / "out").rglob("*.png"))
    rows = [{"bytes": jpeg(Image.open(path), 75), "path": path.name} for path in files]
    labels = [int(path.parent.name == "cup") for path in files]
    pq.write_table(pa.table({"image": rows, "label": labels}), tmp_path / "back.parquet")
    back = returned(tmp_path / "back.parquet", place / "out")
    assert dict(back.counts) == {"recoded": 6} and back.channel == "jpeg:quality=75" and back.missing == 0


def jpeg(im: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    im.save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_metadata_that_are_lost_on_the_way_are_told(tmp_path: Path, run: Run):
    source, exif = photos(tmp_path / "in"), Image.Exif()
    exif[0x8298] = "Jane"  # copyright
    for path in source.rglob("*.png"):
        Image.open(path).save(path, exif=exif)
    carry_out(Job(source=str(source), out=tmp_path / "out", method="noise", canvas=96), run)
    shutil.copytree(tmp_path / "out", tmp_path / "same")
    assert {each.metadata for each in returned(tmp_path / "same", tmp_path / "out").files} == {"kept"}
    bare = sent(tmp_path, tmp_path / "bare", lambda im: Image.fromarray(np.asarray(im)))
    assert {each.metadata for each in returned(bare, tmp_path / "out").files} == {"gone"}


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_a_reservation_that_came_back_is_told_from_one_that_is_gone(tmp_path: Path, form: str):
    source = str(photos(tmp_path / "in"))
    carry_out(Job(source=source, out=tmp_path / "out", method="noise", rights=Rights(value="no-training")), Run())

    for name, key, state in (("same", "no-training", "kept"), ("other", "allowed", "gone"), ("none", "", "gone")):
        xmp = Rights(value=key).packet("") if key else None
        options: dict[str, Any] = {"xmp": xmp or b""}
        if form == "png":  # Pillow's `xmp` does nothing for PNG
            options = {"pnginfo": PngImagePlugin.PngInfo()}
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", (xmp or b"").decode())
        back = returned(sent(tmp_path, tmp_path / name, as_it_is, form, **options), tmp_path / "out")
        assert {each.rights for each in back.files} == {state}


@pytest.mark.parametrize("quality", [30, 75, 92])
def test_a_jpeg_tells_its_quality(quality: int):
    im = Image.fromarray(photographs.chelsea()[:64, :64])
    assert jpeg_quality(jpeg(im, quality)) == quality
    assert jpeg_quality(b"no picture") is None


def test_a_channel_of_several_steps_is_the_steps_one_after_another():
    images = data.shapes(2, 16).images
    both = recoded(images, "resize:share=0.5+jpeg:quality=60")
    assert (both == recoded(recoded(images, "resize:share=0.5"), "jpeg:quality=60")).all()
    with pytest.raises(UserError, match="several joined by"):
        check_channel("resize:share=0.5+nothing")
