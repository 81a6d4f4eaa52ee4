"""Content credentials: what is signed into every file, what is not in it, and what is told of it afterwards."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from PIL import Image, PngImagePlugin

c2pa = pytest.importorskip("c2pa", reason='c2pa-python is not installed; pip install "miue[c2pa]" adds it')

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: E402

import miue  # noqa: E402
from chains import Chain, chain  # noqa: E402
from miue import publish  # noqa: E402
from miue.cli import main as cli  # noqa: E402
from miue.core.errors import UserError  # noqa: E402
from miue.core.run import Run  # noqa: E402
from miue.data.picture import Rules, decode  # noqa: E402
from miue.data.rights import VALUES, Rights  # noqa: E402
from miue.publish.credentials import SETTINGS, SOURCE, Signer, read, uses  # noqa: E402
from miue.workflows.job import Job  # noqa: E402
from miue.workflows.protect import carry_out  # noqa: E402
from miue.workflows.record import RunRecord  # noqa: E402
from miue.workflows.rights import read_credentials, sign_rights, write_rights  # noqa: E402
from miue.workflows.verify import returned, verify  # noqa: E402
from pictures import coloured, hashes  # noqa: E402
from processes import Stopping  # noqa: E402

JPEG = re.compile(rb"\xff\xd8\xff[\xdb\xe0\xe1]")  # its start; a signature may have the first three bytes by chance
OURS = VALUES["no-training"]
NOT, ALLOWED = {"use": "notAllowed"}, {"use": "allowed"}
TRAINING = {"data_mining": ALLOWED, "ai_training": NOT, "ai_generative_training": NOT, "ai_inference": ALLOWED}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A chain that signs."""
    return chain(tmp_path_factory.mktemp("own"))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    rights = Rights(value="no-training", creator="Zoë", url="https://example.org/rights")
    return Job(source=str(coloured(tmp_path / "in")), out=tmp_path / "out", method="noise", canvas=8, rights=rights)


@pytest.fixture
def out(job: Job, run: Run) -> Path:
    carry_out(job, run)
    return job.out


def lines(out: Path) -> list[publish.Line]:
    return publish.finished(miue.data.private_of(out))[1]


def raw(payload: bytes) -> dict[str, Any]:
    """All that a file's credentials hold, by the library itself."""
    with c2pa.Reader(None, io.BytesIO(payload)) as reader:
        return json.loads(reader.json())


def xmp(payload: bytes) -> bytes:
    with Image.open(io.BytesIO(payload)) as im:
        return im.info["xmp"]


# --- what is signed ---


@pytest.mark.parametrize("form", ["png", "webp"])
def test_files_are_signed_and_stay_what_they_are(job: Job, run: Run, own: Chain, form: Any):
    carry_out(replace(job, format=form), run)
    before, files = lines(job.out), {line.out: (job.out / line.out).read_bytes() for line in lines(job.out)}
    signing = sign_rights(job.out, own.cert, own.key, run=run)
    assert (signing.files, signing.before, signing.reserved) == (12, 0, {OURS: 12}) and "Photographer" in signing.signer
    for old, line in zip(before, lines(job.out), strict=True):
        payload = (job.out / line.out).read_bytes()
        assert line.out_pixels == old.out_pixels == decode(payload, Rules()).digest
        assert line.signed and line.out_bytes == len(payload) and line.out_sha256 == hashes(job.out)[line.out]
        assert line.out_sha256 != old.out_sha256 and xmp(payload) == xmp(files[line.out])
        assert 0 < len(payload) - len(files[line.out]) < 20_000
        assert not JPEG.search(payload) and b"c2pa.thumbnail" not in payload
        content = raw(payload)
        (manifest,) = content["manifests"].values()
        assert content["validation_state"] == "Valid" and not manifest.get("ingredients")
        assert manifest["title"] == line.out and "thumbnail" not in manifest
        actions, mining = (each["data"] for each in manifest["assertions"])
        assert actions == {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE}]}
        assert mining == {"entries": {f"cawg.{use}": entry for use, entry in TRAINING.items()}}
    record = RunRecord.of(job.out)
    assert record.written and record.written.bytes_out == sum(line.out_bytes for line in lines(job.out))
    assert all(finding.ok and finding.signed for finding in verify(job.out, job.source))
    assert publish.verify(job.out)[0].rights == OURS


@pytest.mark.parametrize(
    ("value", "refused", "constrained"),
    [
        ("none", None, ()),
        ("allowed", (), ()),
        ("no-generative", ("ai_generative_training",), ()),
        ("no-training", ("ai_training", "ai_generative_training"), ()),
        ("search-only", ("ai_training", "ai_generative_training"), ("data_mining",)),
        ("constraint", (), ("data_mining", "ai_training", "ai_generative_training")),
        ("no-mining", ("data_mining", "ai_training", "ai_generative_training"), ()),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_every_value_is_signed(out: Path, own: Chain, value: str, refused: Any, constrained: Any, legacy: bool):
    payload = (out / "red" / "0.png").read_bytes()
    signed = Signer.of(own.cert, own.key, legacy=legacy).sign(payload, "png", "a", uses(VALUES[value], "ask me"))
    (manifest,) = raw(signed)["manifests"].values()
    said = {each["label"]: each["data"] for each in manifest["assertions"][1:]}
    names = [] if refused is None else ["cawg", "c2pa"] if legacy else ["cawg"]
    assert set(said) == {f"{name}.training-mining" for name in names}
    for name in names:
        entries = {
            use.removeprefix(f"{name}."): entry for use, entry in said[f"{name}.training-mining"]["entries"].items()
        }
        assert {use for use, entry in entries.items() if entry["use"] == "notAllowed"} == set(refused)
        assert {use for use, entry in entries.items() if entry["use"] == "constrained"} == set(constrained)
        assert set(entries) == set(TRAINING) and entries["ai_inference"] == ALLOWED
        words = "ask me" if value == "constraint" else "search engine indexing only"
        assert all(entries[use]["constraint_info"] == words for use in constrained)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "P-521", "Ed25519", "RSA"],
)  # fmt: skip
def test_keys_of_every_kind_sign(out: Path, tmp_path: Path, key: Any):
    other = chain(tmp_path / "other", key=key)
    signed = Signer.of(other.cert, other.key).sign((out / "red" / "0.png").read_bytes(), "png", "a", {})
    assert read(signed).state == "valid"


def test_what_a_source_reserved_is_signed_and_else_nothing(job: Job, run: Run, own: Chain):
    packet = Rights(value="no-mining").packet("")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", (packet or b"").decode())
    path = Path(job.source) / "red" / "0.png"
    Image.open(path).save(path, pnginfo=info)
    carry_out(replace(job, rights=Rights()), run)
    assert sign_rights(job.out, own.cert, own.key, run=run).reserved == {"DMI-PROHIBITED": 1, "": 11}
    credentials = read_credentials(job.out)
    assert credentials["red/0.png"].uses["data_mining"] == "notAllowed" and credentials["red/1.png"].uses == {}
    assert {each.state for each in credentials.values()} == {"valid"} and all(f.ok for f in verify(job.out))


# --- again, killed, replaced, taken out ---


def test_a_killed_command_goes_on_and_a_finished_one_changes_nothing(out: Path, run: Run, own: Chain):
    pixels = [line.out_pixels for line in lines(out)]
    with pytest.raises(KeyboardInterrupt):
        sign_rights(out, own.cert, own.key, run=Stopping(run.seed, "cpu"))
    half = {name: value for name, value in hashes(out).items() if read((out / name).read_bytes()).state == "valid"}
    assert 0 < len(half) < 12 and all(finding.ok for finding in verify(out))
    signing = sign_rights(out, own.cert, own.key, run=run)
    assert (signing.files, signing.before) == (12, len(half)) and half.items() <= hashes(out).items()
    assert all(finding.ok and finding.signed for finding in verify(out))
    after, manifest = hashes(out), lines(out)
    assert sign_rights(out, own.cert, own.key, run=run).before == 12 and hashes(out) == after
    assert lines(out) == manifest and [line.out_pixels for line in manifest] == pixels


def test_another_certificate_replaces_the_signatures(out: Path, run: Run, own: Chain, tmp_path: Path):
    sign_rights(out, own.cert, own.key, run=run)
    other = chain(tmp_path / "other", "B. Photographer")
    for legacy in (False, True):
        assert sign_rights(out, other.cert, other.key, legacy=legacy, run=run).before == 0
        assert {each.signer for each in read_credentials(out).values()} == {"B. Photographer"}
        assert {each.legacy for each in read_credentials(out).values()} == {legacy}
    (manifest,) = raw((out / "red" / "0.png").read_bytes())["manifests"].values()
    assert not manifest.get("ingredients") and all(finding.ok for finding in verify(out))


def test_other_rights_take_the_signatures_out_and_say_so(
    job: Job, out: Path, run: Run, own: Chain, monkeypatch: pytest.MonkeyPatch
):
    sign_rights(out, own.cert, own.key, run=run)
    notes = list[str]()
    monkeypatch.setattr(Run, "say", lambda self, text: notes.append(text))
    with pytest.raises(KeyboardInterrupt):
        write_rights(out, Rights(value="no-mining"), Stopping(run.seed, "cpu"))
    assert any("reservation" in finding.problem for finding in verify(out))
    write_rights(out, Rights(value="no-mining"), run)
    assert notes == ["content credentials of 12 files are gone, because they were signed for other bytes: sign again"]
    assert {each.state for each in read_credentials(out).values()} == {"none"}
    assert not any(line.signed for line in lines(out)) and all(finding.ok for finding in verify(out))
    plainly = replace(job, out=job.out.with_name("plainly"), rights=Rights(value="no-mining"))
    carry_out(plainly, run)
    assert hashes(out) == hashes(plainly.out)
    write_rights(out, Rights(value="no-training"), run)
    assert len(notes) == 1 + sum("classes" in note or "budget" in note or "writing" in note for note in notes)
    sign_rights(out, own.cert, own.key, run=run)
    assert read_credentials(out)["red/0.png"].uses["ai_training"] == "notAllowed"


def test_the_same_protection_again_keeps_them_and_new_pictures_have_none(
    job: Job, out: Path, run: Run, own: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sign_rights(out, own.cert, own.key, run=run)
    before = hashes(out)
    carry_out(job, run)
    assert hashes(out) == before and all(line.signed for line in lines(out))
    new = coloured(tmp_path / "new", per_class=1, seed=4)
    assert command("add", out, new) == 0
    assert "The new files have no content credentials" in capsys.readouterr().out
    assert before.items() <= hashes(out).items() and sum(finding.signed for finding in verify(out)) == 12
    assert sign_rights(out, own.cert, own.key, run=run).before == 12
    assert all(finding.ok and finding.signed for finding in verify(out))


# --- what is told of them ---


def chunks(payload: bytes) -> Iterator[bytes]:
    """The chunks of a PNG."""
    at = 8
    while at < len(payload):
        end = at + 12 + int.from_bytes(payload[at : at + 4], "big")
        yield payload[at:end]
        at = end


def test_verify_notices_what_was_taken_out_or_changed(out: Path, run: Run, own: Chain):
    sign_rights(out, own.cert, own.key, run=run)
    stripped, other, saved = (out / "red" / f"{i}.png" for i in range(3))
    payload = stripped.read_bytes()
    stripped.write_bytes(payload[:8] + b"".join(c for c in chunks(payload) if c[4:8] != b"caBX"))
    other.write_bytes(other.read_bytes()[:-12] + b"\0\0\0\0tEXt\x30\x0f\x3f\xdd" + other.read_bytes()[-12:])
    Image.open(saved).save(saved)
    problems = {finding.path: finding.problem for finding in verify(out) if not finding.ok}
    assert problems == {
        "red/0.png": "content credentials: missing",
        "red/1.png": "content credentials: do not fit, the file was changed since",
        "red/2.png": f"reservation: missing instead of {OURS}",
    }
    states = {name: each.state for name, each in read_credentials(out / "red").items()}
    assert states == {"0.png": "none", "1.png": "broken", "2.png": "none", "3.png": "valid"}


def test_what_came_back_without_them_is_told(out: Path, run: Run, own: Chain, tmp_path: Path):
    sign_rights(out, own.cert, own.key, run=run)
    back = tmp_path / "back"
    shutil.copytree(out, back)
    Image.open(back / "red" / "0.png").save(back / "red" / "0.png")
    payload = (back / "red" / "1.png").read_bytes()
    (back / "red" / "1.png").write_bytes(payload[:8] + b"".join(c for c in chunks(payload) if c[4:8] != b"caBX"))
    files = {each.path: each for each in returned(back, out, run=run).files}
    states = {name: each.credentials for name, each in files.items()}
    assert states.pop("red/0.png") == states.pop("red/1.png") == "gone" and set(states.values()) == {"kept"}
    stripped = files["red/1.png"]
    assert stripped.share == 1 and stripped.rights == "kept" and not stripped.ok


def test_a_preview_in_credentials_of_others_is_another_picture(out: Path, own: Chain):
    """The library embeds one unless it is told not to."""
    path, signer = out / "red" / "0.png", Signer.of(own.cert, own.key)
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE}
    assertions = [{"label": "c2pa.actions", "data": {"actions": [action]}}]
    definition = {"claim_generator_info": [{"name": "x", "version": "1"}], "assertions": assertions}
    info, result = c2pa.C2paSignerInfo(signer.algorithm, signer.chain, signer.key, None), io.BytesIO()
    with c2pa.Signer.from_info(info) as theirs, c2pa.Builder.from_json(definition) as builder:
        builder.sign(theirs, "image/png", io.BytesIO(path.read_bytes()), result)
    path.write_bytes(result.getvalue())
    assert JPEG.search(result.getvalue())
    (finding,) = (finding for finding in verify(out) if not finding.ok)
    assert finding.path == "red/0.png" and "carries another picture inside" in finding.problem


def command(*words: object) -> int | str | None:
    before = sys.argv
    try:
        sys.argv = ["miue", *map(str, words)]
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    return ended.value.code or 0


def test_the_verbs_say_what_is_signed(out: Path, own: Chain, capsys: pytest.CaptureFixture[str]):
    assert command("rights", "sign", out, "--cert", own.cert, "--key", own.key, "-q") == 0
    text = capsys.readouterr().out
    assert f"12 files of {out} signed by CN=A. Photographer" in text and f"signed: {OURS} (12 files)" in text
    assert "No time stamp" in text and "unknown signer" in text and "Nothing is reserved" not in text
    assert command("rights", "sign", out, "--cert", own.cert, "--key", own.key, "-q", "--json") == 0
    assert json.loads(capsys.readouterr().out)["before"] == 12
    assert command("rights", "show", out / "red" / "0.png") == 0
    text = capsys.readouterr().out
    assert (
        text.startswith(f"0.png: {OURS}; creator: Zoë; C2PA: signed by A. Photographer")
        and "ai_training notAllowed" in text
    )
    assert command("verify", out) == 0 and "content credentials (C2PA): 12 of 12 files" in capsys.readouterr().out
    assert command("rights", "write", out, "--rights", "none") == 0
    assert "content credentials of 12 files are gone" in capsys.readouterr().err
    assert command("rights", "sign", out, "--cert", own.cert, "--key", own.key, "-q") == 0
    assert "Nothing is reserved in these files" in capsys.readouterr().out


def test_without_the_library_they_are_noticed_and_nothing_is_signed(
    out: Path, run: Run, own: Chain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sign_rights(out, own.cert, own.key, run=run)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    before = hashes(out)
    assert command("rights", "sign", out, "--cert", own.cert, "--key", own.key) == 2
    assert 'need c2pa-python; pip install "miue[c2pa]" adds it' in capsys.readouterr().err and hashes(out) == before
    assert command("rights", "show", out / "red" / "0.png") == 0
    assert "C2PA: there, not read; pip install" in capsys.readouterr().out
    assert all(finding.ok and finding.signed for finding in verify(out))


# --- mistakes ---


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cert": "none.pem"}, "none.pem: cannot be read"),
        ({"key": "none.pem"}, "none.pem: cannot be read"),
        ({"cert": "text.pem"}, "text.pem: is no certificate in PEM form"),
        ({"key": "text.pem"}, "text.pem: is no private key in PEM form"),
        ({"key": "chain.pem"}, "chain.pem: is no private key in PEM form"),
        ({"key": "other/key.pem"}, "does not belong to the first certificate in .*chain.pem; give its own"),
        ({"cert": "turned.pem"}, "it is number 2 in the file; put it first"),
        ({"key": "secret.pem"}, "secret.pem: is encrypted"),
        (
            {"cert": "late/chain.pem", "key": "late/key.pem"},
            "late/chain.pem: nothing can be signed .* not valid at time",
        ),
        ({"cert": "server/chain.pem", "key": "server/key.pem"}, "nothing can be signed .*the certificate is invalid"),
        ({"cert": "weak/chain.pem", "key": "weak/key.pem"}, "weak/key.pem: cannot sign; allowed are keys P-256"),
        ({"timestamp": "example.org"}, "'example.org' is no web address of a time stamp authority"),
        ({"timestamp": "http://127.0.0.1:9/"}, "http://127.0.0.1:9/: gives no time stamp"),
    ],
)
def test_a_mistake_is_one_message_and_changes_nothing(out: Path, run: Run, given: dict[str, str], told: str):
    from cryptography.hazmat.primitives import serialization

    place = out.parent
    right = chain(place)
    chain(place / "other")
    chain(place / "late", days=-5)
    chain(place / "server", use=ExtendedKeyUsageOID.SERVER_AUTH)
    chain(place / "weak", key=ec.generate_private_key(ec.SECP256K1()))
    (place / "text.pem").write_text("hello")
    first, second = right.cert.read_text().split("-----BEGIN")[1:]
    (place / "turned.pem").write_text(f"-----BEGIN{second}-----BEGIN{first}")
    key = serialization.load_pem_private_key(right.key.read_bytes(), None)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (place / "secret.pem").write_bytes(key.private_bytes(*pem, serialization.BestAvailableEncryption(b"x")))
    values = {"cert": "chain.pem", "key": "key.pem"} | given
    paths = {name: place / value for name, value in values.items() if name != "timestamp"}
    before = hashes(out)
    with pytest.raises(UserError, match=told):
        sign_rights(out, **paths, timestamp=given.get("timestamp", ""), run=run)
    assert hashes(out) == before and not any(line.signed for line in lines(out))


def test_outputs_that_cannot_be_signed(job: Job, out: Path, run: Run, own: Chain, tmp_path: Path):
    with pytest.raises(UserError, match="only an output of miue has one"):
        sign_rights(tmp_path / "in", own.cert, own.key, run=run)
    with FileLock(job.private / "run.lock"), pytest.raises(UserError, match="another run is working on it"):
        sign_rights(out, own.cert, own.key, run=run)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(out / "red" / "0.png")
    with pytest.raises(UserError, match="does not show the picture that was written"):
        sign_rights(out, own.cert, own.key, run=run)
    payload = (out / "red" / "1.png").read_bytes()
    rows = [{"image": {"bytes": payload, "path": None}, "label": i % 2} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "t.npz", images=images, labels=np.arange(4) % 2)
    for name in ("t.parquet", "t.npz"):
        table = replace(job, source=str(tmp_path / name), out=tmp_path / f"out-{name}")
        carry_out(table, run)
        with pytest.raises(UserError, match="is a table; content credentials are signed into files of pictures"):
            sign_rights(table.out, own.cert, own.key, run=run)


# --- the network ---


@contextmanager
def server(answer: Any) -> Iterator[tuple[str, list[bytes]]]:
    """A server on this machine that answers with `answer(body)`, and what it was asked."""
    asked = list[bytes]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            content = answer(asked[-1])
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as it:
        thread = threading.Thread(target=it.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{it.server_port}/", asked
        it.shutdown()
        thread.join()


def test_what_lies_elsewhere_is_not_fetched(out: Path, own: Chain):
    """A file of somebody that points at a server. With its own settings the library asks there."""
    payload, signer, result = (out / "red" / "0.png").read_bytes(), Signer.of(own.cert, own.key), io.BytesIO()
    assertions = [
        {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE}]}}
    ]
    definition = {"claim_generator_info": [{"name": "x", "version": "1"}], "assertions": assertions}
    with server(lambda body: b"") as (url, asked):
        info = c2pa.C2paSignerInfo(signer.algorithm, signer.chain, signer.key, None)
        context = c2pa.Context.from_dict(SETTINGS)
        with c2pa.Signer.from_info(info) as theirs, c2pa.Builder.from_json(definition, context) as builder:
            builder.set_remote_url(url)
            builder.set_no_embed()
            builder.sign(theirs, "image/png", io.BytesIO(payload), result)
        credentials = read(result.getvalue())
        assert (credentials.state, credentials.why, asked) == ("elsewhere", url, [])
        with pytest.raises(c2pa.C2paError):
            c2pa.Reader("image/png", io.BytesIO(result.getvalue()))
        assert len(asked) == 1


def test_a_time_stamp_is_asked_for_every_file(out: Path, run: Run, own: Chain, tmp_path: Path):
    """An authority on this machine: openssl answers."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl is not installed")
    stamping = chain(tmp_path / "stamping", use=ExtendedKeyUsageOID.TIME_STAMPING)
    config, query, reply = (tmp_path / name for name in ("tsa.cnf", "query", "reply"))
    (tmp_path / "serial").write_text("01\n")
    config.write_text(
        f"[tsa]\ndefault_tsa = t\n[t]\nserial = {tmp_path}/serial\nsigner_cert = {stamping.cert}\n"
        f"certs = {stamping.cert}\nsigner_key = {stamping.key}\nsigner_digest = sha256\ndefault_policy = 1.2.3.4\n"
        "digests = sha256, sha384, sha512\ness_cert_id_alg = sha256\n"
    )

    def answer(body: bytes) -> bytes:
        query.write_bytes(body)
        words = [openssl, "ts", "-reply", "-config", config, "-queryfile", query, "-out", reply]
        subprocess.run(words, check=True, capture_output=True)
        return reply.read_bytes()

    with server(answer) as (url, asked):
        signing = sign_rights(out, own.cert, own.key, timestamp=url, run=run)
        assert len(asked) == 12 and signing.timestamp == url and signing.larger < 20_000
        assert all(each.state == "valid" and each.stamped for each in read_credentials(out).values())
        assert sign_rights(out, own.cert, own.key, timestamp=url, run=run).before == 12 == len(asked)
    assert all(finding.ok and finding.signed for finding in verify(out))
