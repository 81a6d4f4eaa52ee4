"""The secret of a trace: a master, the fields of random signs that follow from it, and the commitment to both.

master -> one key for every class and number (SHAKE-256) -> its signs (SHAKE-256 of key and beacon). Each key has a
leaf, its SHA-256, and the commitment is the SHA-256 of the public parameters and of all leaves by name. Whoever is
shown the master derives all of it again, so that no key can have been chosen for itself. One key can be shown as well,
and checked against the commitment, while the others stay secret; only a beacon shows that such a key was not searched
for. Signs are fair and independent, because the test needs that: keys are never chosen, for instance to be far apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Int8
from pydantic import Field
from torch import Tensor

from miue.core.errors import UserError
from miue.core.files import Record, write_atomically

SCHEME = "miue-trace-2"
COINS = "coins"
Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]
Beacon = Annotated[str, Field(pattern="^(|([0-9a-f]{2}){16,})$")]
Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def bits(domain: str, secret: bytes, count: int) -> np.ndarray:
    """The first `count` bits of SHAKE-256 of scheme, domain and secret, as an array of 0 and 1.

    Different domains give independent bits of one secret.
    """
    stream = hashlib.shake_256(b"\0".join([SCHEME.encode(), domain.encode(), secret])).digest(-(-count // 8))
    return np.unpackbits(np.frombuffer(stream, np.uint8))[:count]


def signs(domain: str, secret: bytes, shape: tuple[int, ...]) -> Int8[Tensor, "*shape"]:
    """Fair signs, +1 or -1, from `bits`."""
    values = bits(domain, secret, int(np.prod(shape))).astype(np.int8) * 2 - 1
    return torch.from_numpy(values).reshape(shape)


class Parameters(Record):
    """The public part of a mark. All of it is part of the commitment."""

    classes: tuple[str, ...]
    """In the order of the labels."""
    cells: int = 4
    """Side of a field of signs, which is stretched to the size of each picture."""
    channels: int = 3
    keys: int = 1
    """Fields of a class. With two, each picture has one of them, by a secret coin."""
    strength: int = 4
    """Largest change that the mark makes, in grey levels."""
    canvas: int = 32
    """Side of the pictures that the attack saw."""
    beacon: str = ""
    """The public random number on which the signs depend too, named before it was known; empty for none."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Colours, rows and columns of a field."""
        return self.channels, self.cells, self.cells

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys, class by class."""
        return tuple(f"{c}/{g}" for c in range(len(self.classes)) for g in range(self.keys))

    @property
    def owners(self) -> list[int]:
        """The class of each key."""
        return [c for c in range(len(self.classes)) for _ in range(self.keys)]


class Opened(Record):
    """Keys of a secret, shown: enough to compute the test, and to check the keys against the commitment."""

    parameters: Parameters
    leaves: Mapping[str, Hex32]
    """SHA-256 of every key with its name, by name."""
    keys: Mapping[str, Hex32]
    """The keys that are shown, by name."""
    master: Hex = ""
    """The value that all keys follow from; empty if some of them stay secret."""
    beacon: Beacon = ""
    """The value of the public random number that the parameters name; empty if they name none."""

    @property
    def commitment(self) -> str:
        """SHA-256, hexadecimal, over parameters and leaves; it says nothing about a key."""
        public = {"parameters": self.parameters.model_dump(mode="json"), "leaves": dict(self.leaves)}
        text = json.dumps(public, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(SCHEME.encode() + text.encode()).hexdigest()

    @cached_property
    def signs(self) -> dict[str, Int8[Tensor, "channels q q"]]:
        """The field of every key that is shown."""
        shown = {name: bytes.fromhex(key) for name, key in self.keys.items() if name != COINS}
        beacon = bytes.fromhex(self.beacon)
        return {name: signs("signs", key + beacon, self.parameters.shape) for name, key in shown.items()}

    def stacked(self) -> Int8[Tensor, "k channels q q"]:
        """The fields of all keys, class by class. Raises UserError if some of them stay secret."""
        if missing := [name for name in self.parameters.names if name not in self.keys]:
            raise UserError(
                f"{len(missing)} of {len(self.parameters.names)} keys stay secret; this test needs them all"
            )
        return torch.stack([self.signs[name] for name in self.parameters.names])

    def only(self, names: Collection[str]) -> Opened:
        """A copy that shows no other keys than these, and not the master."""
        return self.model_copy(update={"keys": {n: k for n, k in self.keys.items() if n in names}, "master": ""})

    @property
    def in_order(self) -> tuple[str, ...]:
        """The names of all keys in the order of their leaves, in which keys are revealed one by one."""
        return tuple(sorted(self.parameters.names, key=self.leaves.__getitem__))

    @property
    def first(self) -> tuple[str, ...]:
        """The names of the keys that are shown, in that order, up to the first that is not."""
        return tuple(takewhile(self.keys.__contains__, self.in_order))

    def wrong(self) -> list[str]:
        """The names of keys that do not belong to the commitment: not one leaf a key, or another key than shown.

        If the master is shown, all keys must follow from it.
        """
        names = {*self.parameters.names, COINS}
        wrong = names ^ {*self.leaves}
        wrong |= {name for name, key in self.keys.items() if self.leaves.get(name) != _leaf(name, key)}
        if self.master:
            master = bytes.fromhex(self.master)
            wrong |= {name for name in names if self.keys.get(name) != _key(name, master)}
        return sorted(wrong)

    def bits(self, domain: str, count: int) -> np.ndarray:
        """Bits that follow from all keys, which must be shown, so that nobody knows them before the keys.

        domain, count: see `bits` of this module.
        """
        return bits(domain, "".join(self.keys[name] for name in self.parameters.names).encode(), count)


def _key(name: str, master: bytes) -> str:
    return hashlib.shake_256(b"\0".join([SCHEME.encode(), b"key", name.encode(), master])).hexdigest(32)


def _leaf(name: str, key: str) -> str:
    return hashlib.sha256(b"\0".join([SCHEME.encode(), b"leaf", name.encode(), bytes.fromhex(key)])).hexdigest()


class _Stored(Record):
    """The file of a secret."""

    scheme: Literal["miue-trace-2"] = SCHEME
    parameters: Parameters
    master: Hex32
    beacon: Beacon = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class Secret:
    """The owner's secret. Whoever has it can remove the mark, teach it to another model, and judge.

    beacon: see `Opened`; it changes all signs and no leaf. fingerprint: data and settings that the secret is for.
    """

    parameters: Parameters
    master: bytes = field(repr=False)
    beacon: bytes = b""
    fingerprint: str = ""

    @classmethod
    def drawn(cls, parameters: Parameters, fingerprint: str = "") -> Secret:
        """A new secret from the system's source of randomness."""
        return cls(parameters, secrets.token_bytes(32), fingerprint=fingerprint)

    @cached_property
    def opened(self) -> Opened:
        """All keys, shown."""
        keys = {name: _key(name, self.master) for name in (*self.parameters.names, COINS)}
        leaves = {name: _leaf(name, key) for name, key in keys.items()}
        shown = {"keys": keys, "master": self.master.hex(), "beacon": self.beacon.hex()}
        return Opened(parameters=self.parameters, leaves=leaves, **shown)

    @property
    def commitment(self) -> str:
        """See `Opened.commitment`."""
        return self.opened.commitment

    @property
    def signs(self) -> Int8[Tensor, "k channels q q"]:
        """The fields of all keys, class by class."""
        return self.opened.stacked()

    def coins(self, digests: Collection[str]) -> list[int]:
        """Which of its class's keys each picture has. digests: SHA-256 of the original files, in any order.

        Equal files get equal coins, and order and names do not matter.
        """
        key = bytes.fromhex(self.opened.keys[COINS])
        return [int(bits(COINS, key + digest.encode(), 1)[0]) if self.parameters.keys > 1 else 0 for digest in digests]

    def with_beacon(self, beacon: str) -> Secret:
        """A copy whose signs depend on the value of the public number that the parameters name.

        Raises UserError if they name none, or if it is no hexadecimal number of 16 bytes.
        """
        if not self.parameters.beacon:
            raise UserError("this secret was committed to without naming a public number, so none can be given later")
        try:
            value = bytes.fromhex(beacon)
        except ValueError:
            value = b""
        if len(value) < 16:
            raise UserError(
                f"beacon {beacon!r} is no hexadecimal number of at least 32 digits, such as those that drand and NIST "
                "publish"
            )
        return replace(self, beacon=value)

    def save(self, path: Path) -> None:
        """Write the secret so that nobody but its owner can read the file (mode 0600)."""
        text = _Stored(
            parameters=self.parameters,
            master=self.master.hex(),
            beacon=self.beacon.hex(),
            fingerprint=self.fingerprint,
        ).model_dump_json(indent=1)

        def write(part: Path) -> None:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
                file.write(text)

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path) -> Secret:
        """Read a file that `save` wrote. Raises UserError if it is missing or damaged."""
        if not path.exists():
            raise UserError(f"{path}: there is no secret here; was this set protected with --trace?")
        stored = _Stored.load(path, "bring it back from a copy; without it nothing can be traced")
        return cls(stored.parameters, bytes.fromhex(stored.master), bytes.fromhex(stored.beacon), stored.fingerprint)
