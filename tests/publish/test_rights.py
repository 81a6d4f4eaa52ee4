"""Reservations: the packet in every file, the files for a web server, and reading both back."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import urllib.robotparser
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

import miue
from miue import publish
from miue.cli import telling
from miue.core.errors import UserError
from miue.core.run import Run
from miue.data.picture import Picture, Rules, decode, encode
from miue.data.rights import DC, PLUS, RDF, RIGHTS, VALUES, VOCABULARY, Reservation, Rights, reservation
from miue.publish.rights import server_files
from miue.trace import Tracing
from miue.workflows.job import Job
from miue.workflows.protect import carry_out
from miue.workflows.record import RunRecord
from miue.workflows.rights import changed_rights, read_credentials, read_rights, write_rights, write_server_files
from miue.workflows.verify import verify
from pictures import coloured, hashes, listed
from processes import Stopping

OURS = VALUES["no-training"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    rights = Rights(value="no-training", creator="A. Photographer", url="https://example.org/rights")
    return Job(source=str(coloured(tmp_path / "in")), out=tmp_path / "out", method="noise", canvas=8, rights=rights)


def packet(key: str = "DMI-PROHIBITED", prefix: str = "plus", body: str = "") -> bytes:
    """XMP as other programs write it."""
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f'xmlns:{prefix}="{PLUS}" {prefix}:DataMining="{VOCABULARY}{key}">{body}</rdf:Description></rdf:RDF>'
        "</x:xmpmeta>"
    ).encode()


def listed_in(name: str, *items: str) -> str:
    every = "".join(f"<rdf:li>{item}</rdf:li>" for item in items)
    return f'<dc:{name} xmlns:dc="{DC}"><rdf:Bag>{every}</rdf:Bag></dc:{name}>'


def keys(folder: Path) -> set[str]:
    return {each.key for each in read_rights(folder).values()}


# --- the packet ---


def test_the_packet_is_these_bytes():
    rights = Rights(value="no-training", creator="Zoë & <Co>", text="Ask\x00 me")
    expected = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:x="adobe:ns:meta/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"><rdf:RDF>'
        '<rdf:Description rdf:about="" '
        'plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING" xmpRights:Marked="True">'
        '<xmpRights:UsageTerms><rdf:Alt><rdf:li xml:lang="x-default">Ask me</rdf:li></rdf:Alt></xmpRights:UsageTerms>'
        '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">(c) Zoë</rdf:li></rdf:Alt></dc:rights>'
        "<dc:creator><rdf:Seq><rdf:li>Zoë &amp; &lt;Co&gt;</rdf:li></rdf:Seq></dc:creator>"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )
    made = rights.packet("", copyright="(c) Zoë")
    assert made == expected.encode() == rights.packet("", copyright="(c) Zoë")
    about = ElementTree.fromstring(made).find(f".//{{{RDF}}}Description")
    assert about is not None and about.get(f"{{{PLUS}}}DataMining") == VOCABULARY + OURS
    assert about.findtext(f".//{{{DC}}}creator//{{{RDF}}}li") == "Zoë & <Co>"
    assert about.get(f"{{{RIGHTS}}}WebStatement") is None and reservation(made) == Reservation(
        OURS, True, True, "Zoë & <Co>", "(c) Zoë"
    )


def test_nothing_is_reserved_for_somebody():
    assert Rights().packet("", "artist", "copyright") is None and Rights().key("DMI-ALLOWED") == ""
    assert server_files(Rights()) == {} == server_files(Rights(value="allowed"))


@pytest.mark.parametrize("value", [value for value in VALUES if value not in ("none", "constraint")])
def test_every_value_is_read_back(value: str):
    assert reservation(Rights(value=value).packet("")) == Reservation(VALUES[value])


def test_a_constraint_stands_in_words():
    made = Rights(value="constraint", text="not for weapons").packet("")
    about = ElementTree.fromstring(made or b"").find(f".//{{{RDF}}}Description")
    assert about is not None and about.findtext(f"{{{PLUS}}}OtherConstraints//{{{RDF}}}li") == "not for weapons"


@pytest.mark.parametrize(
    ("value", "source", "kept"),
    [
        ("none", "DMI-PROHIBITED", "DMI-PROHIBITED"),
        ("allowed", OURS, OURS),
        ("no-training", "DMI-PROHIBITED", "DMI-PROHIBITED"),
        ("no-training", "DMI-ALLOWED", OURS),
        ("no-training", VALUES["no-generative"], OURS),
        ("no-mining", OURS, "DMI-PROHIBITED"),
        ("no-training", "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR", "DMI-PROHIBITED"),
        ("search-only", VALUES["constraint"], "DMI-PROHIBITED"),
    ],
)
def test_what_a_source_reserves_is_kept_where_it_is_stricter(value: str, source: str, kept: str):
    assert Rights(value=value).key(source) == kept


@pytest.mark.parametrize(
    ("xmp", "found"),
    [
        (packet(), Reservation("DMI-PROHIBITED")),
        (packet(prefix="p1.x-y"), Reservation("DMI-PROHIBITED")),
        (packet().replace(VOCABULARY.encode(), b""), Reservation("DMI-PROHIBITED", canonical=False)),
        (packet("DMI-UNSPECIFIED"), Reservation()),
        (packet("javascript:alert(1)"), Reservation()),
        (packet().replace(PLUS.encode(), b"http://elsewhere/"), Reservation()),
        (
            f'<a xmlns:plus="{PLUS}"><plus:DataMining>{VOCABULARY}{OURS}</plus:DataMining></a>'.encode(),
            Reservation(OURS),
        ),
        (f'<a xmlns:q="{PLUS}"><q:DataMining rdf:resource="{VOCABULARY}{OURS}"/></a>'.encode(), Reservation(OURS)),
        (b'<!DOCTYPE a [<!ENTITY b "&c;&c;&c;">]>' + packet(), Reservation(readable=False)),
        (b"\xff\xfe\x00", Reservation()),
        (
            packet(body=listed_in("creator", "A\n B", "C") + listed_in("rights", "(c) me", "(c) moi")),
            Reservation("DMI-PROHIBITED", creator="A B, C", copyright="(c) me"),
        ),
        (packet(body="<unclosed>"), Reservation("DMI-PROHIBITED")),
        (None, Reservation()),
    ],
)
def test_reservations_of_others_are_read(xmp: bytes | None, found: Reservation):
    assert reservation(xmp) == found


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"value": "no-trainig"},
            "rights 'no-trainig' are unknown; allowed: none, allowed, no-generative, no-training",
        ),
        ({"creator": "me"}, "creator says nothing without rights"),
        ({"value": "constraint"}, "say which one, with --rights-text"),
        ({"value": "no-training", "url": "example.org"}, "is no web address"),
        ({"value": "no-training", "contact": "me@example.org"}, "write mailto:NAME@HOST"),
        ({"value": "no-training", "contact": "mailto:me@example.org"}, "add --rights-url"),
        ({"value": "no-training", "path": "photos"}, "is no path on a server"),
        ({"value": "no-training", "path": "/a/; }/"}, "is no path on a server"),
        ({"value": "no-training", "no_search": True}, "goes with rights no-mining alone"),
        ({"value": "no-training", "text": "x" * 8001}, "more than 8000 characters"),
    ],
)
def test_a_mistake_is_one_message(given: dict[str, Any], told: str):
    with pytest.raises(UserError, match=told.replace("(", r"\(")):
        Rights(**given)


# --- in files ---


@pytest.mark.parametrize("form", ["png", "webp"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_alpha_and_profile_are_as_without_rights(form: Any, channels: int):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = pixels[..., -1] if channels in (2, 4) else None
    colour = pixels if alpha is None else pixels[..., :-1]
    picture = Picture(colour, alpha, replace(decode(plain(), Rules()).meta, icc=icc if channels > 2 else None))
    without, xmp = encode(picture, form), Rights(value="no-training").packet("")
    assert xmp
    payload = encode(picture, form, xmp)
    if form == "png":
        assert payload.index(b"iTXt") < payload.index(b"IDAT")
    assert 0 < len(payload) - len(without) < 800 and payload.count(xmp) == 1
    a, b = decode(without, Rules()), decode(payload, Rules())
    assert a.digest == b.digest and (a.meta.reserved, b.meta.reserved) == ("", OURS) and a.meta.icc == b.meta.icc
    with Image.open(io.BytesIO(payload)) as im:
        assert im.info["xmp"] == xmp
    assert payload == encode(b, form, xmp)  # what is read back is written as the same bytes


def plain() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def with_xmp(path: Path, xmp: bytes) -> None:
    with Image.open(path) as im:
        im.load()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    im.save(path, pnginfo=info)


def test_every_file_says_it_and_verify_says_so(job: Job, run: Run):
    carry_out(job, run)
    findings = verify(job.out, job.source)
    assert len(findings) == 12 and all(f.ok and f.rights == OURS for f in findings)
    assert keys(job.out) == {OURS}
    assert read_rights(job.out / "red" / "0.png") == {"0.png": Reservation(OURS, creator="A. Photographer")}
    assert {f.rights for f in verify(carried(replace(job, rights=Rights(), out=job.out.with_name("none")), run))} == {
        ""
    }
    path = job.out / "red" / "0.png"
    Image.open(path).save(path)  # what many sites do
    assert [f.problem for f in verify(job.out) if not f.ok] == [f"reservation: missing instead of {OURS}"]
    with_xmp(path, packet("DMI-ALLOWED"))
    assert [f.problem for f in verify(job.out) if not f.ok] == [f"reservation: DMI-ALLOWED instead of {OURS}"]


def carried(job: Job, run: Run) -> Path:
    carry_out(job, run)
    return job.out


def test_other_rights_are_other_files_with_the_same_noise(job: Job, run: Run, monkeypatch: pytest.MonkeyPatch):
    first = carry_out(job, run)
    (noise,) = job.private.glob("perturbation-*")
    before, at = hashes(job.out), noise.stat().st_mtime_ns
    assert carry_out(job, run).fingerprint == first.fingerprint and hashes(job.out) == before
    other = replace(job, rights=Rights(value="no-mining"))
    with pytest.raises(
        UserError, match=r"only the rights differ .* the same: --rights no-training --creator"
    ) as refused:
        carry_out(other, run)
    assert str(refused.value).endswith(f"to change them: miue rights write {job.out} --rights no-mining")
    with pytest.raises(UserError, match="was written with other settings"):
        carry_out(replace(other, seed=1), run)
    monkeypatch.setattr("miue.workflows.protect.launch", lambda *a: pytest.fail("noise was computed"))
    carry_out(replace(other, overwrite=True), run)
    assert keys(job.out) == {"DMI-PROHIBITED"} and hashes(job.out) != before
    assert list(job.private.glob("perturbation-*")) == [noise] and noise.stat().st_mtime_ns == at
    none = carry_out(replace(job, rights=Rights(), overwrite=True), run)
    assert none.fingerprint == first.perturbation and not publish.rights_of(job.out).exists()


@pytest.mark.parametrize("form", ["png", "webp"])
def test_rights_written_later_give_the_same_bytes(job: Job, run: Run, form: Any):
    """As if protect had written them; without the originals; after a kill; and back to none."""
    for path in Path(job.source).rglob("0.png"):
        exif = Image.Exif()
        exif[ExifTags.Base.Artist], exif[ExifTags.Base.Copyright] = "Zoë".encode(), b"(c) 2026"
        Image.open(path).convert("L").save(path, exif=exif)
    job = replace(job, format=form, rights=Rights(value="no-training"))
    bare = replace(job, rights=Rights(), out=job.out.with_name("bare"))
    carry_out(job, run)
    carry_out(bare, run)
    plain, wanted = hashes(bare.out), hashes(job.out)
    shutil.move(job.source, job.source + "-away")
    with pytest.raises(KeyboardInterrupt):
        write_rights(bare.out, job.rights, Stopping(run.seed, "cpu"))
    assert plain != hashes(bare.out) != wanted and any("reservation" in f.problem for f in verify(bare.out))
    record = write_rights(bare.out, job.rights, run)
    assert hashes(bare.out) == wanted and all(f.ok and f.rights == OURS for f in verify(bare.out))
    assert record == RunRecord.of(bare.out) and record.fingerprint == RunRecord.of(job.out).fingerprint
    shutil.move(job.source + "-away", job.source)
    assert carry_out(replace(job, out=bare.out), run).fingerprint == record.fingerprint and hashes(bare.out) == wanted
    assert "Zoë".encode() in (bare.out / "red" / f"0.{form}").read_bytes()
    write_rights(bare.out, Rights(), run)
    assert hashes(bare.out) == plain and all(f.ok and not f.rights for f in verify(bare.out))
    assert not publish.rights_of(bare.out).exists()


def test_names_are_those_of_the_xmp_or_else_of_the_exif(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Copyright] = "In EXIF", "(c) EXIF"
    im = Image.new("RGB", (9, 9))
    im.save(tmp_path / "a.jpg", exif=exif)
    im.save(
        tmp_path / "b.jpg", exif=exif, xmp=packet(body=listed_in("creator", "In XMP")).replace(VOCABULARY.encode(), b"")
    )
    im.save(tmp_path / "c.jpg")
    every = read_rights(tmp_path)
    assert every["a.jpg"] == Reservation(creator="In EXIF", copyright="(c) EXIF")
    assert every["b.jpg"] == Reservation("DMI-PROHIBITED", False, creator="In XMP", copyright="(c) EXIF")
    assert every["c.jpg"] == Reservation()
    assert list(telling.reserved(telling.Reserved(rights=every, credentials=read_credentials(tmp_path)))) == [
        "a.jpg: no reservation; creator: In EXIF; copyright: (c) EXIF",
        "b.jpg: DMI-PROHIBITED (not as a full URI); creator: In XMP; copyright: (c) EXIF",
        "c.jpg: no reservation",
    ]


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:40])
    every = read_rights(tmp_path)
    assert every["a.png"] == Reservation() and every["b.png"].broken
    texts = list(telling.reserved(telling.Reserved(rights=every, credentials=read_credentials(tmp_path))))
    assert texts[0] == "a.png: no reservation" and texts[1].startswith("b.png: cannot be read: ")
    with pytest.raises(UserError, match=r"b\.png: cannot be read: "):
        read_rights(tmp_path / "b.png")


def test_texts_that_are_not_given_stay(job: Job, run: Run):
    """Who changes the reservation does not lose the name and the page of the owner."""
    mine = Rights(
        value="no-mining", creator="A.", url="https://a.example/r", contact="mailto:a@a.example", no_search=True
    )
    carry_out(replace(job, rights=mine), run)
    other = changed_rights(job.out, "no-training", {})
    assert other == replace(mine, value="no-training", no_search=False)
    assert changed_rights(job.out, "no-mining", {"creator": "", "text": "Ask."}) == replace(
        mine, creator="", text="Ask."
    )
    assert changed_rights(job.out, "none", {}) == Rights()
    with pytest.raises(UserError, match="creator says nothing without rights"):
        changed_rights(job.out, "none", {"creator": "B."})
    write_rights(job.out, other, run)
    assert "Owner: A." in (job.out / "PROTECTED.md").read_text()


def test_pictures_that_are_added_say_it_too(job: Job, run: Run, tmp_path: Path):
    carry_out(job, run)
    new = coloured(tmp_path / "new", per_class=1, seed=4)
    miue.add(job.out, new, run=run)
    assert len(read_rights(job.out)) == 15 and keys(job.out) == {OURS}
    write_rights(job.out, Rights(value="search-only"), run)
    assert all(f.ok and f.rights == VALUES["search-only"] for f in verify(job.out, job.source))
    again = hashes(job.out)
    assert miue.add(job.out, new, run=run).written.counts == {"protected": 15} and hashes(job.out) == again


def test_a_picture_that_was_changed_is_not_written_over(job: Job, run: Run):
    carry_out(job, run)
    path = job.out / "red" / "0.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="does not show the picture that was written"):
        write_rights(job.out, Rights(value="no-mining"), run)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        write_rights(job.out, Rights(value="no-mining"), run)


@pytest.mark.parametrize("lost", ["missing", "changed", "link", "folder", "server"])
def test_nothing_is_written_where_something_cannot_be(job: Job, run: Run, lost: str):
    """Everything is looked at first, so that no file says one thing and the next another."""
    carry_out(job, run)
    path, other, kept = job.out / "red" / "3.png", job.out / "red" / "2.png", job.out.with_name("kept")
    server = publish.rights_of(job.out)
    shutil.copytree(job.out.parent, kept)
    if lost == "server":
        shutil.rmtree(server)
        server.symlink_to(kept)
    else:
        path.unlink()
        other.unlink()
    if lost == "changed":
        Image.new("RGB", (8, 8)).save(path)
    elif lost == "link":
        path.symlink_to(kept / "out" / "red" / "3.png")
    elif lost == "folder":
        path.mkdir()
    before, record = hashes(job.out), (job.private / "run.json").read_bytes()
    told = {
        "changed": "does not show the picture that was written; nothing was written",
        "link": "nothing is written through links; nothing was written",
        "server": "move it away",
    }.get(lost, "cannot be read .*; nothing was written")
    with pytest.raises(UserError, match=told) as error:
        write_rights(job.out, Rights(value="no-mining"), run)
    assert lost == "server" or f"{other}: cannot be read" in str(error.value)  # all are told, not the first alone
    assert hashes(job.out) == before and (job.private / "run.json").read_bytes() == record
    if lost == "server":
        server.unlink()
    elif lost == "folder":
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    for each in (path, other):
        shutil.copy(kept / "out" / "red" / each.name, each)
    write_rights(job.out, Rights(value="no-mining"), run)
    assert keys(job.out) == {"DMI-PROHIBITED"} and all(f.ok for f in verify(job.out))


def test_what_a_source_says_is_kept_and_nothing_else_of_it(job: Job, run: Run):
    thumbnail = '<xmpGImg:image xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/">/9j/SECRET</xmpGImg:image><History/>'
    with_xmp(Path(job.source) / "red" / "0.png", packet(body=thumbnail))
    with_xmp(Path(job.source) / "red" / "1.png", b'<!DOCTYPE a [<!ENTITY b "&c;&c;">]>' + packet())
    for rights in (job.rights, Rights()):
        out = carried(replace(job, rights=rights, out=job.out.with_name(f"out-{rights.value}")), run)
        record = RunRecord.of(out)
        assert record.source.counts == {"ok": 12}
        assert any("a reservation of its own (DMI-PROHIBITED), which is kept" in note for note in record.source.notes)
        assert any("unreadable XMP removed" in note for note in record.source.notes)
        every = read_rights(out)
        assert every["red/0.png"].key == "DMI-PROHIBITED" and every["red/1.png"].key == VALUES[rights.value]
        payload = (out / "red" / "0.png").read_bytes()
        assert b"SECRET" not in payload and b"History" not in payload and all(f.ok for f in verify(out))
        write_rights(out, Rights(value="allowed"), run)  # nor does it get lost later
        assert read_rights(out)["red/0.png"].key == "DMI-PROHIBITED"


def test_rows_of_tables_say_it_and_arrays_cannot(job: Job, run: Run, tmp_path: Path):
    rows = [{"image": {"bytes": plain_of(i), "path": None}, "label": i % 2} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    np.savez(
        tmp_path / "t.npz",
        images=np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8),
        labels=np.arange(4) % 2,
    )
    for name, key in (("t.parquet", OURS), ("t.npz", "")):
        out = carried(replace(job, source=str(tmp_path / name), out=tmp_path / f"out-{name}"), run)
        assert [(f.ok, f.rights) for f in verify(out)] == [(True, key)] * 4
        with pytest.raises(UserError, match=r"is a table; run its protect command once more with --overwrite"):
            write_rights(out, Rights(value="no-mining"), run)


def test_rows_of_tables_are_shown(job: Job, run: Run, tmp_path: Path):
    """Of the output and of its table; arrays say that they have no place for it."""
    rows = [{"image": {"bytes": plain_of(i), "path": None}, "label": i % 2} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "t.npz", images=images, labels=np.arange(4) % 2)
    assert read_rights(tmp_path / "t.parquet") == {f"row {i}": Reservation() for i in range(4)}
    for name in ("t.parquet", "t.npz"):
        out = carried(replace(job, source=str(tmp_path / name), out=tmp_path / f"out-{name}"), run)
        for path in (out, out / name):
            if name == "t.npz":
                with pytest.raises(UserError, match="bare values and no picture files, so it has no place"):
                    read_rights(path)
            else:
                assert read_rights(path) == {f"row {i}": Reservation(OURS, creator="A. Photographer") for i in range(4)}
                assert {each.state for each in read_credentials(path).values()} == {"none"}
    with pytest.raises(UserError, match="no such file or folder"):
        read_rights(tmp_path / "nowhere")


def plain_of(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("form", ["png", "webp"])
def test_an_independent_reader_reads_it(job: Job, run: Run, form: Any):
    if not (exiftool := shutil.which("exiftool")):
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    out = carried(replace(job, format=form), run)
    asked = ["-j", "-n", "-XMP-plus:DataMining", "-XMP-dc:Creator", "-XMP-xmpRights:all", "-r", str(out / "red")]
    told = json.loads(subprocess.run([exiftool, *asked], capture_output=True, text=True, check=True).stdout)
    assert len(told) == 4
    for each in told:
        assert each["DataMining"] in (OURS, VOCABULARY + OURS) and each["Creator"] == "A. Photographer"
        assert each["Marked"] is True and each["WebStatement"] == "https://example.org/rights"


# --- for the web server ---


def test_files_of_somebody_else_are_left_there(job: Job, run: Run):
    out = carried(replace(job, rights=Rights()), run)
    folder = publish.rights_of(out)
    folder.mkdir()
    for name in ("README.md", "policy.json"):
        (folder / name).write_text("mine")
    before = hashes(folder)
    assert write_server_files(out) is None and hashes(folder) == before
    with pytest.raises(
        UserError, match=r"README\.md: was not written by miue, and the files for the web server go there"
    ):
        replace(job, out=job.out.with_name(out.name), rights=job.rights, overwrite=True).checked(job.scan())
    with pytest.raises(UserError, match="was not written by miue"):
        write_rights(out, job.rights, run)
    assert hashes(folder) == before


def test_the_files_for_a_server(job: Job, run: Run):
    contact = replace(job.rights, contact="mailto:rights@example.org", path="/photos/")
    out = carried(replace(job, rights=contact), run)
    folder = publish.rights_of(out)
    assert folder == out.with_name("out.rights") and folder.name not in listed(out)
    first = hashes(folder)
    assert set(first) == {
        "tdmrep.json", "robots.txt.part", "nginx.conf.part", "apache.htaccess", "policy.json", "LICENSE-REQUEST.md",
        "README.md",
    }  # fmt: skip
    policy = "https://example.org/photos/policy.json"
    rules = json.loads((folder / "tdmrep.json").read_text())
    assert rules == [{"location": "/photos/", "tdm-reservation": 1, "tdm-policy": policy}]
    assert type(rules[0]["tdm-reservation"]) is int
    offer = json.loads((folder / "policy.json").read_text())
    assert offer["@context"] == ["http://www.w3.org/ns/odrl.jsonld", "http://www.w3.org/ns/tdmrep.jsonld"]
    assert offer["uid"] == policy and offer["assigner"]["vcard:hasEmail"] == "mailto:rights@example.org"
    assert "prohibition" not in offer and offer["permission"][0]["action"] == "tdm:mine"
    assert "A reservation is a statement, not a lock." in (folder / "README.md").read_text()
    assert "Ask rights@example.org for permission" in (folder / "LICENSE-REQUEST.md").read_text()
    shutil.rmtree(folder)
    assert write_server_files(out) == folder and hashes(folder) == first
    (folder / "of-the-owner.txt").write_text("stays")
    write_rights(out, Rights(), run)
    assert listed(folder) == ["of-the-owner.txt"]


def headers(name: str, rights: Rights) -> Message:
    """The headers that a server would send, from one of the snippets."""
    message = Message()
    for line in server_files(rights)[name].splitlines():
        words = line.strip().removesuffix(" always;").split(" ", 4 if "Header" in line else 2)
        if words[0] == "add_header" or words[:3] == ["Header", "always", "set"]:
            message[words[-2]] = words[-1].strip('"')
    return message


def disallowed(message: Message, token: str | None) -> bool:
    """Whether img2dataset drops a picture with these headers: `disallowed_header_directives` as they are by default."""
    directives = ("noai", "noimageai", "noindex", "noimageindex")
    for value in message.get_all("X-Robots-Tag", []):
        agent, colon, rest = value.partition(":")
        told = [word.strip().lower() for word in (rest if colon else value).split(",")]
        if (not colon or agent.lower() == token) and set(told) & set(directives):
            return True
    return False


@pytest.mark.parametrize("name", ["nginx.conf.part", "apache.htaccess"])
@pytest.mark.parametrize("token", [None, "img2dataset"])
def test_the_commonest_collector_stops_at_the_header(name: str, token: str | None):
    message = headers(name, Rights(value="no-training"))
    assert message["tdm-reservation"] == "1" and message["Content-Usage"] == "train-ai=n"
    assert disallowed(message, token) and not disallowed(Message(), token)
    assert "noindex" not in message["X-Robots-Tag"]
    assert "noindex" in headers(name, Rights(value="no-mining", no_search=True))["X-Robots-Tag"]
    try:
        from img2dataset.downloader import is_disallowed  # pyright: ignore[reportMissingImports]
    except ImportError:
        return  # not installed: the five lines above are what it does
    assert is_disallowed(message, token, ["noai", "noimageai", "noindex", "noimageindex"])
    assert not is_disallowed(Message(), token, ["noai", "noimageai", "noindex", "noimageindex"])


def groups(text: str) -> list[tuple[set[str], list[str]]]:
    """Groups of a robots.txt by RFC 9309, where blank lines and unknown lines end nothing: agents and their rules."""
    found: list[tuple[set[str], list[str]]] = []
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        if key.lower() == "user-agent":
            if not found or found[-1][1]:
                found.append((set(), []))
            found[-1][0].add(value)
        elif key.lower() in ("allow", "disallow"):
            found[-1][1].append(f"{key}:{value}")
    return found


@pytest.mark.parametrize("no_search", [False, True])
def test_robots_txt_stops_collectors_and_no_search_engine(no_search: bool):
    text = server_files(Rights(value="no-mining", path="/photos/", no_search=no_search))["robots.txt.part"]
    parser = urllib.robotparser.RobotFileParser()
    parser.parse(text.splitlines())
    assert not parser.can_fetch("CCBot", "https://x/photos/a.png") and parser.can_fetch("CCBot", "https://x/index.html")
    assert parser.can_fetch("Googlebot", "https://x/photos/a.png") != no_search
    (collectors, rules), (others, theirs) = groups(text)
    assert {"CCBot", "GPTBot", "img2dataset"} <= collectors and others == {"*"} and "*" not in collectors
    assert rules == ["Disallow:/photos/"] and theirs == (["Disallow:/photos/"] if no_search else ["Allow:/"])
    assert "Content-Signal: search=no, ai-train=no" in text
    assert "search=yes" in server_files(Rights(value="search-only"))["robots.txt.part"]


def test_where_nothing_is_reserved_it_is_said_and_how_to_reserve_it(job: Job, run: Run, tmp_path: Path):
    rows = [{"image": {"bytes": plain_of(i), "path": None}, "label": i % 2} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    rights, table, out = Rights(), tmp_path / "table", job.out
    for each, way in (
        (replace(job, rights=rights), f"miue rights write {out} --rights no-training"),
        (
            replace(job, rights=rights, source=str(tmp_path / "t.parquet"), out=table),
            "--overwrite --rights no-training",
        ),
    ):
        record = carry_out(each, run)
        assert write_server_files(each.out) is None
        (line,) = telling.for_server(each.out, record, False)
        assert line.startswith(f"{each.out} reserves nothing") and line.endswith(way)
    record = write_rights(out, Rights(value="no-mining"), run)
    assert not any("reserves nothing" in line for line in telling.for_server(out, record, True))


# --- for people who come upon the pictures ---


def test_the_notice_says_what_is_reserved_and_follows_it(job: Job, run: Run):
    rights = replace(job.rights, contact="mailto:rights@example.org", text="Not for {anything}.")
    notice = carried(replace(job, rights=rights), run) / publish.NOTICE
    text = notice.read_text()
    assert text.startswith(publish.NOTICE_TEXT) and "Owner: A. Photographer" in text
    assert "reserves the use of these pictures for training any model. Ask rights@example.org" in text
    assert "More: https://example.org/rights" in text and "Not for {anything}." in text and "C2PA" in text
    write_rights(job.out, Rights(value="search-only"), run)
    assert "except for a search index. Ask the owner" in notice.read_text() and "Photographer" not in notice.read_text()
    miue.add(job.out, coloured(job.out.parent / "new", per_class=1, seed=4), run=run)
    assert "except for a search index" in notice.read_text()
    write_rights(job.out, Rights(value="allowed"), run)
    assert notice.read_text() == publish.NOTICE_TEXT and all(f.ok for f in verify(job.out))


def test_the_notice_keeps_the_commitment_of_a_trace(job: Job, run: Run):
    for alone in (False, True):
        own = replace(job, out=job.out.with_name(f"out-{alone}"), trace=Tracing(alone=alone, unmeasured=True))
        record, notice = carry_out(own, run), own.out / publish.NOTICE
        first = notice.read_text()
        assert first.startswith("# Marked pictures" if alone else publish.NOTICE_TEXT) and "## Rights" in first
        write_rights(own.out, Rights(), run)
        plain = notice.read_text()
        assert record.commitment in plain and "## Rights" not in plain and first.startswith(plain)
        assert all(f.ok for f in verify(own.out))
