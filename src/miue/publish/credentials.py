"""Content credentials (C2PA): what an output says, signed by its owner into every file, and read back.

Needs the extra `c2pa`. Never a thumbnail, never the original as an ingredient: both would be clean copies, or lead to
one. No network unless a time stamp is asked for. Sources: C2PA 2.x, CAWG Training and Data Mining Assertion 1.1.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from miue.core.errors import UserError
from miue.core.files import Record, installed
from miue.data.formats import signed
from miue.data.picture import Picture
from miue.data.rights import VALUES, Rights, host
from miue.publish.manifest import Line
from miue.publish.rights import change_files, encoded
from miue.publish.sinks import Form

T = TypeVar("T")
ADDS = 'pip install "miue[c2pa]" adds it'
TABLE = "content credentials are signed into files of pictures, so protect a folder of class folders instead"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
MINING, LEGACY = "cawg.training-mining", "c2pa.training-mining"
AWAY = "must fetch remote manifests from url "  # in what the library says of a file that points at a server
LEAST_RSA = 2048  # bits
EVERY = ("data_mining", "ai_training", "ai_generative_training")
REFUSED: Mapping[str, tuple[str, ...]] = {
    "allowed": (),
    "no-generative": EVERY[2:],
    "no-training": EVERY[1:],
    "search-only": EVERY[1:],
    "constraint": (),
    "no-mining": EVERY,
}
"""The uses that are `notAllowed`, by the value of the rights."""
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {"decode_identity_assertions": False, "allowed_network_hosts": []},
}
"""Of the library, whose own ones embed thumbnails and fetch what a file points at."""
State = Literal["none", "valid", "broken", "elsewhere", "not read"]


class Credentials(Record):
    """The content credentials of one file."""

    state: State
    """valid: signature and bytes fit; whether the signer is trusted was not looked at. broken: they do not. elsewhere:
    the file points at some on a server, which were not fetched. not read: the extra is not installed."""
    signer: str = ""
    serial: str = ""
    """Serial number of the certificate."""
    stamped: str = ""
    """Time by a time stamp authority; empty if there is none."""
    uses: Mapping[str, str] = {}
    """The statement on each use, as "ai_training": "notAllowed"."""
    legacy: bool = False
    """True if the assertion of C2PA 1.x is there, too."""
    why: str = ""


def uses(key: str, text: str = "") -> dict[str, dict[str, str]]:
    """The signed statement on each use for a key of the PLUS vocabulary; empty for none. text: the constraint."""
    value = next((value for value, known in VALUES.items() if known == key), "none")
    if value not in REFUSED:
        return {}
    entries = {use: {"use": "notAllowed" if use in REFUSED[value] else "allowed"} for use in (*EVERY, "ai_inference")}
    if value == "search-only":
        entries["data_mining"] = {"use": "constrained", "constraint_info": "search engine indexing only"}
    if value == "constraint":
        entries |= {use: {"use": "constrained", "constraint_info": text} for use in EVERY}
    return entries


@dataclass(frozen=True)
class Signer:
    """A certificate chain with its private key, and how to sign."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    algorithm: str
    name: str
    serial: str
    until: str
    """Last day of the certificate."""
    cert: Path
    timestamp: str = ""
    """Address of an authority that is asked for a time stamp for every file; empty: nobody is asked."""
    legacy: bool = False

    @classmethod
    def of(cls, cert: Path, key: Path, timestamp: str = "", legacy: bool = False) -> Signer:
        """Read a chain (PEM, the signer's certificate first) and its key (PEM). Raises UserError if they do not fit."""
        library()
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            load_pem_private_key,
        )
        from cryptography.x509 import load_pem_x509_certificates

        if timestamp and not host(timestamp):
            raise UserError(f"{timestamp!r} is no web address of a time stamp authority, as https://HOST/PATH")
        chain = _pem(cert, load_pem_x509_certificates, "certificate")
        secret = _pem(key, lambda data: load_pem_private_key(data, None), "private key")
        algorithm, public = _algorithm(secret, key), secret.public_key()
        whose = [each.public_key() == public for each in chain]
        if not whose[0]:
            mend = f"it is number {whose.index(True) + 1} in the file; put it first" if any(whose) else "give its own"
            raise UserError(f"{key}: does not belong to the first certificate in {cert}; {mend}")
        return cls(
            chain=b"".join(each.public_bytes(Encoding.PEM) for each in chain),
            key=secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            algorithm=algorithm,
            name=chain[0].subject.rfc4514_string(),
            serial=str(chain[0].serial_number),
            until=f"{chain[0].not_valid_after_utc:%Y-%m-%d}",
            cert=cert,
            timestamp=timestamp,
            legacy=legacy,
        )

    def fits(self, credentials: Credentials, entries: Mapping[str, Mapping[str, str]]) -> bool:
        """Return True if credentials are those that `sign` would write."""
        return (
            credentials.state == "valid"
            and credentials.serial == self.serial
            and credentials.uses == {use: entry["use"] for use, entry in entries.items()}
            and (credentials.legacy, bool(credentials.stamped)) == (self.legacy and bool(entries), bool(self.timestamp))
        )

    def sign(self, payload: bytes, form: Form, title: str, entries: Mapping[str, Mapping[str, str]]) -> bytes:
        """The file with credentials in it. Raises UserError if certificate, key or time stamp authority do not do."""
        c2pa, kind = library(), f"image/{form}"
        actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE}]}
        assertions = [{"label": "c2pa.actions", "created": True, "data": actions}]
        for label in (MINING, *([LEGACY] if self.legacy else [])) if entries else ():
            named = {f"{label.partition('.')[0]}.{use}": dict(entry) for use, entry in entries.items()}
            assertions.append({"label": label, "created": True, "data": {"entries": named}})
        definition = {
            "claim_generator_info": [{"name": "miue", "version": installed()}],
            "title": title,
            "format": kind,
            "assertions": assertions,
        }
        result = io.BytesIO()
        try:
            info = c2pa.C2paSignerInfo(self.algorithm, self.chain, self.key, self.timestamp or None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder.from_json(definition, self._context) as builder:
                builder.sign(signer, kind, io.BytesIO(payload), result)
        except c2pa.C2paError as error:
            raise UserError(self._refused(str(error))) from None
        credentials = read(result.getvalue())
        if not self.fits(credentials, entries):
            raise RuntimeError(f"{title}: what was signed is not what is read back ({credentials})")
        return result.getvalue()

    @cached_property
    def _context(self) -> Any:
        return library().Context.from_dict(SETTINGS)

    def _refused(self, error: str) -> str:
        why = error.partition(": ")[2] or error
        if self.timestamp and "http" in why.lower():
            return f"{self.timestamp}: gives no time stamp ({why}); the same command goes on when it does"
        need = "it must be in date, not self-signed, for digital signatures, and for one of e-mail, documents or C2PA"
        return f"{self.cert}: nothing can be signed with this certificate ({why}); {need}"


def library() -> Any:
    """The module that writes and reads content credentials. Raises UserError where it is not installed."""
    try:
        import c2pa
    except (ImportError, OSError, RuntimeError):  # the last two: its compiled part does not run on this system
        raise UserError(f"content credentials need c2pa-python; {ADDS}") from None
    return c2pa


def read(payload: bytes) -> Credentials:
    """The content credentials of a file of anybody. Nothing is fetched."""
    try:
        c2pa = library()
    except UserError:
        return Credentials(state="not read", why=ADDS) if signed(payload) else Credentials(state="none")
    try:
        with c2pa.Reader(None, io.BytesIO(payload), context=c2pa.Context.from_dict(SETTINGS)) as reader:
            return _described(json.loads(reader.json()))
    except c2pa.C2paError as error:
        if AWAY in str(error):
            return Credentials(state="elsewhere", why=str(error).partition(AWAY)[2])
        return Credentials(state="broken", why=str(error)) if signed(payload) else Credentials(state="none")
    except (AttributeError, KeyError, TypeError, ValueError):  # whoever made it, made it of other parts
        return Credentials(state="broken", why="its parts are not those of the standard")


def _described(content: Any) -> Credentials:
    manifest = content["manifests"][content["active_manifest"]]
    data = {each["label"]: each["data"] for each in manifest["assertions"]}
    entries = data.get(MINING, data.get(LEGACY, {})).get("entries", {})
    signature = manifest["signature_info"]
    codes = [each["code"] for each in content.get("validation_status", ())]
    return Credentials(
        state="valid" if content["validation_state"] in ("Valid", "Trusted") else "broken",
        signer=", ".join(filter(None, (signature.get("common_name"), signature.get("issuer")))),
        serial=signature.get("cert_serial_number", ""),
        stamped=signature.get("time", ""),
        uses={name.partition(".")[2]: entry["use"] for name, entry in entries.items()},
        legacy=LEGACY in data,
        why=", ".join(code for code in codes if code != "signingCredential.untrusted"),
    )


def sign(
    out: Path, rights: Rights, form: Form, signer: Signer, tick: Callable[[], None]
) -> tuple[list[Line], list[int]]:
    """Sign every file of an output; pixels and metadata stay. Returns the new lines, and the bytes added to each file.

    Files that are signed in the same way already stay as they are, and nothing is added for them.
    rights: those that its files say. Killed? The same call goes on. Raises UserError if the output is a table, if a
    file does not show what was written, or if nothing can be signed.
    """
    added = list[int]()

    def content(line: Line, picture: Picture, payload: bytes) -> tuple[bytes, dict[str, Any]]:
        entries = uses(line.rights, rights.text)
        if signed(payload) and signer.fits(read(payload), entries):
            return payload, {"signed": True}
        bare = encoded(line, picture, rights, form)  # without an older signature, which would become an ingredient
        result = signer.sign(bare, form, line.out, entries)
        added.append(len(result) - len(bare))
        return result, {"signed": True}

    return change_files(out, TABLE, content, tick), added


def _pem(path: Path, load: Callable[[bytes], T], what: str) -> T:
    """The content of a PEM file. Raises UserError if it is not `what`."""
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except TypeError:  # of cryptography, for a key that needs a password
        raise UserError(
            f"{path}: is encrypted; openssl pkey -in {path} -out PLAIN.pem writes one that is not"
        ) from None
    except (ValueError, ArithmeticError, NotImplementedError):
        raise UserError(f"{path}: is no {what} in PEM form") from None


def _algorithm(key: Any, path: Path) -> str:
    """The algorithm of C2PA that a private key signs with. Raises UserError if there is none."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= LEAST_RSA:
        return "ps256"
    raise UserError(f"{path}: cannot sign; allowed are keys P-256, P-384, P-521, Ed25519 and RSA from {LEAST_RSA} bits")
