"""Throw-away certificates for the tests of signatures, as an authority would make them: a root and a signer's own."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Chain:
    """Files of a chain (the signer's certificate first) and of its key."""

    cert: Path
    key: Path


def chain(
    folder: Path,
    name: str = "A. Photographer",
    days: int = 30,
    use: ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    key: Any = None,
) -> Chain:
    """Write a chain that is valid for so many more days, for one extended use."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, own = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
    root = _begun("Throw-away root", authority, "Throw-away root", 300)
    root = root.add_extension(x509.BasicConstraints(True, None), True).add_extension(_usage(False), True)
    leaf = _begun(name, own, "Throw-away root", days)
    leaf = leaf.add_extension(x509.BasicConstraints(False, None), True).add_extension(_usage(True), True)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    stamps = use == ExtendedKeyUsageOID.TIME_STAMPING
    leaf = leaf.add_extension(issuer, False).add_extension(x509.ExtendedKeyUsage([use]), stamps)
    made = Chain(folder / "chain.pem", folder / "key.pem")
    signed = (each.sign(authority, hashes.SHA256()) for each in (leaf, root))
    made.cert.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in signed))
    made.key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _begun(name: str, key: Any, issuer: str, days: int) -> x509.CertificateBuilder:
    names = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (issuer, name))
    return x509.CertificateBuilder(
        *names, key.public_key(), x509.random_serial_number(), NOW - datetime.timedelta(100),
        NOW + datetime.timedelta(days),
    )  # fmt: skip


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(signs, False, False, False, False, not signs, not signs, False, False)
