"""The secret: derivation, domains, commitment, coins, the file."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
import torch

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget, ImageSet, stretch
from miue.testing import tiny
from miue.trace import Nothing, Parameters, Secret, Tracing, mark_of, marked, rows_of, traced
from miue.trace.secret import bits, signs

CLASSES = ("ant", "bee", "cat")
MASTER = bytes(range(32))


def secret(**changes) -> Secret:
    master = changes.pop("master", MASTER)
    return Secret(Parameters(**{"classes": CLASSES, "canvas": 8} | changes), master)


def test_bits_are_those_of_shake():
    stream = hashlib.shake_256(b"miue-trace-2\0signs\0" + MASTER).digest(2)
    assert bits("signs", MASTER, 12).tolist() == [int(b) for b in f"{stream[0]:08b}{stream[1]:08b}"[:12]]
    assert signs("signs", MASTER, (2, 2)).unique().tolist() == [-1, 1]


def test_golden_values_of_a_fixed_master():
    """What was published once must be found again by every later version."""
    own = secret()
    assert own.commitment == "b7c730f022138924e457eea368d599076e7ffd4eac14d7676e7b7a8eaf57b963"
    assert (
        "".join("+" if s > 0 else "-" for s in own.signs[0].flatten().tolist())
        == "++++-+-++-+-++--+-+---+-+----+--+-----+++-++--++"
    )
    coins = secret(keys=2).coins([f"{i:064x}" for i in range(16)])
    assert coins == [0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0]


def test_domains_share_no_more_than_chance():
    one, other = bits("signs", MASTER, 4000), bits("coins", MASTER, 4000)
    assert abs((one == other).mean() - 0.5) < 0.03
    own = secret(cells=16)
    agree = (own.signs[0] == own.signs[1]).float().mean()
    assert abs(float(agree) - 0.5) < 0.07


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("ant", "bee", "dog")},
        {"classes": ("bee", "ant", "cat")},
        {"cells": 5},
        {"channels": 1},
        {"keys": 2},
        {"strength": 3},
        {"canvas": 16},
        {"beacon": "round 5"},
        {"master": bytes(32)},
    ],
)
def test_the_commitment_changes_with_every_field(change: dict):
    assert secret(**change).commitment != secret().commitment


def test_coins_follow_the_content_and_not_the_order():
    own, digests = secret(keys=2), [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    coins = own.coins(digests)
    assert own.coins(digests[::-1]) == coins[::-1]
    assert 70 < sum(coins) < 130
    assert secret(keys=2, master=bytes(32)).coins(digests) != coins


def test_a_beacon_changes_all_signs_and_not_the_commitment():
    own = secret(beacon="round 5")
    later = own.with_beacon("ab" * 32)
    assert later.commitment == own.commitment and not torch.equal(later.signs, own.signs)
    assert abs(float((later.signs == own.signs).float().mean()) - 0.5) < 0.2
    for wrong in ("xyz", "ab", ""):
        with pytest.raises(UserError, match="32 digits"):
            own.with_beacon(wrong)
    with pytest.raises(UserError, match="without naming"):
        secret().with_beacon("ab" * 32)


def test_a_shown_key_is_checked_against_the_commitment():
    whole = secret().opened
    part = whole.only(["1/0"])
    assert part.commitment == whole.commitment and list(part.keys) == ["1/0"] and not part.wrong()
    assert torch.equal(part.signs["1/0"], secret().signs[1])
    assert not any(key in part.model_dump_json() for name, key in whole.keys.items() if name != "1/0")
    swapped = part.model_copy(update={"keys": {"2/0": part.keys["1/0"]}})
    assert swapped.wrong() == ["2/0"]  # a key belongs to one class
    with pytest.raises(UserError, match="2 of 3 keys stay secret"):
        part.stacked()


def test_a_shown_master_must_give_all_keys():
    """Keys that were searched for one by one belong to a commitment of their own, and to no master."""
    whole, other = secret().opened, secret(master=bytes(32)).opened
    mixed = {name: dict(getattr(whole, name)) | {"1/0": getattr(other, name)["1/0"]} for name in ("keys", "leaves")}
    searched = whole.model_copy(update=mixed)
    assert searched.wrong() == ["1/0"] and not searched.only(["1/0"]).wrong()
    assert not whole.wrong() and not whole.only(["0/0", "2/0"]).master


@pytest.mark.parametrize("change", [{"1/0": None}, {"1/1": "ab" * 32}, {"coins": None}])
def test_every_key_has_one_leaf(change: dict[str, str | None]):
    whole = secret().opened
    leaves = {name: leaf for name, leaf in {**whole.leaves, **change}.items() if leaf}
    assert whole.model_copy(update={"leaves": leaves}).wrong() == list(change)


def test_a_key_that_is_left_out_ends_what_can_be_revealed_in_order():
    """Whoever reveals one by one cannot leave out the keys that speak against the bet."""
    whole = secret().opened
    first, second, third = whole.in_order
    assert whole.first == (first, second, third) and whole.only([first, third]).first == (first,)
    assert whole.only([second]).first == ()


def test_the_order_of_keys_tells_nothing_of_their_classes():
    orders = {secret(master=bytes([i] * 32)).opened.in_order for i in range(40)}
    assert len(orders) == 6  # of three classes


def test_the_file_is_for_its_owner_alone(tmp_path: Path):
    own = secret(keys=2, beacon="round 5").with_beacon("cd" * 16)
    own.save(tmp_path / "trace.json")
    assert stat.S_IMODE((tmp_path / "trace.json").stat().st_mode) == 0o600
    assert Secret.load(tmp_path / "trace.json") == own
    assert MASTER.hex() not in repr(own)
    (tmp_path / "trace.json").write_text("{")
    with pytest.raises(UserError, match="copy"):
        Secret.load(tmp_path / "trace.json")
    with pytest.raises(UserError, match="--trace"):
        Secret.load(tmp_path / "none.json")


def test_drawn_secrets_differ():
    assert Secret.drawn(secret().parameters).master != Secret.drawn(secret().parameters).master


def data(per_class: int = 4, size: int = 8) -> ImageSet:
    return tiny(per_class=per_class, size=size)


class Flat:
    """An attack that adds its whole budget everywhere."""

    def __call__(self, images: ImageSet, budget: Budget, run: Run):
        from miue.core.types import Perturbation

        self.saw = images, budget
        return Perturbation.rounded(torch.full(images.images.shape, budget.unit), budget, "flat")


def test_a_mark_is_the_stretched_field_in_whole_levels():
    own = secret(canvas=16)
    expected = stretch(own.signs.float(), 16, 16) * 4
    assert (mark_of(own, 16, 16) - expected).abs().max() <= 0.5
    assert mark_of(own, 16, 16).abs().max() == 4
    assert torch.equal(mark_of(own, 4, 4), own.signs * 4)


@pytest.mark.parametrize("keys", [1, 2])
def test_mark_and_attack_share_the_budget(keys: int, tmp_path: Path):
    own, images, attack = secret(keys=keys), data(), Flat()
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(len(images))]
    rows = rows_of(own, images.labels, digests)
    whole = traced(attack, own, images, rows, Budget(8), Run())
    assert attack.saw[1] == Budget(4) and torch.equal(attack.saw[0].images, marked(own, images, rows, Run()).images)
    assert torch.equal(whole.delta, 4 + mark_of(own, 8, 8)[rows]) and whole.budget == Budget(8)
    assert torch.equal(rows // keys, images.labels)
    in_files = traced(attack, own, images, rows, Budget(8), Run(keep=tmp_path, memory=0))
    assert torch.equal(in_files.delta, whole.delta) and not list(tmp_path.iterdir())


def test_the_mark_alone_leaves_the_rest_of_the_budget_empty():
    own, images = secret(cells=8), data(size=16)
    alone = traced(Nothing(), own, images, images.labels, Budget(8), Run())
    assert alone.delta.abs().max() == 4 and alone.delta.shape == (3, 3, 8, 8)


@pytest.mark.parametrize(
    ("tracing", "budget", "channels", "why"),
    [
        (Tracing(), Budget(1.0, "l2"), 3, "grey levels"),
        (Tracing(strength=1), Budget(1), 3, "at least 2"),
        (Tracing(strength=8), Budget(8), 3, "--trace-only"),
        (Tracing(strength=9, alone=True), Budget(8), 3, "exceeds"),
        (Tracing(), Budget(8), 1, "grey"),
    ],
)
def test_what_cannot_carry_a_mark_is_refused(tracing: Tracing, budget: Budget, channels: int, why: str):
    with pytest.raises(UserError, match=why):
        tracing.check(budget, channels)


def test_a_whole_budget_may_be_the_mark():
    Tracing(strength=8, alone=True).check(Budget(8), 3)
    for eps, beside, alone in ((2, 1, 2), (4, 2, 4), (8, 5, 4), (16, 10, 4)):  # some is left for the attack
        assert (Tracing().levels(Budget(eps)), Tracing(alone=True).levels(Budget(eps))) == (beside, alone)
        Tracing().check(Budget(eps), 3)
    for wrong in ({"keys": 3}, {"strength": 0}):
        with pytest.raises(UserError):
            Tracing(**wrong)
