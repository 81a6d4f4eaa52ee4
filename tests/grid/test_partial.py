"""Partial protection: how many rows, which ones, what a trainer gets."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from miue.core.errors import UserError
from miue.core.run import Run
from miue.grid.partial import Partial
from miue.grid.records import Which
from miue.testing import tiny

RUN = Run(seed=0, device_name="cpu")
WAYS: tuple[Which, ...] = ("random", "stratified", "classes")


@given(st.sampled_from(WAYS), st.integers(1, 12), st.integers(2, 5), st.floats(0.3, 1.0), st.integers(0, 9))
def test_the_share_is_the_nearest_number(which: Which, per_class: int, classes: int, share: float, seed: int):
    data = tiny(per_class, classes)
    try:
        chosen = Partial(share=share, which=which).protected(data, RUN.reseeded(seed))
    except UserError:
        assert share * {"random": len(data), "stratified": per_class, "classes": classes}[which] <= 0.5 + 1e-6
        return
    counts = data.labels[chosen].bincount(minlength=classes)
    if which == "random":
        assert abs(int(chosen.sum()) - share * len(data)) <= 0.5 + 1e-4
    elif which == "stratified":
        assert all(abs(int(n) - share * per_class) <= 0.5 + 1e-4 for n in counts)
    else:
        assert set(counts.tolist()) <= {0, per_class} and abs(int((counts > 0).sum()) - share * classes) <= 0.5 + 1e-4


@pytest.mark.parametrize("which", WAYS)
def test_a_larger_share_contains_a_smaller_one_and_seeds_differ(which: Which):
    data = tiny(10, 10)
    chosen = [Partial(share=share, which=which).protected(data, RUN) for share in (0.2, 0.4, 0.8, 1.0)]
    assert all(bool((large | ~small).all()) for small, large in pairwise(chosen))
    assert chosen[-1].all() and not chosen[-2].all()
    assert torch.equal(chosen[0], Partial(share=0.2, which=which).protected(data, RUN.reseeded(0)))
    assert not torch.equal(chosen[0], Partial(share=0.2, which=which).protected(data, RUN.reseeded(1)))


def test_what_a_trainer_gets():
    clean = tiny(10, 3)
    protected = clean.with_images(255 - clean.images, "protected")
    partial = Partial(share=0.6, leaked=0.5)
    chosen, twins = partial.protected(clean, RUN), partial.twins(clean, RUN)
    joined, rest = partial.joined(clean, protected, RUN), partial.rest(clean, RUN)
    assert chosen.sum() == 18 and twins.sum() == 9 and bool((chosen | ~twins).all())
    assert len(joined) == 39 and joined.name == "protected, 60% protected (stratified), 50% leaked"
    assert torch.equal(joined.images[:30][chosen], protected.images[chosen])
    assert torch.equal(joined.images[:30][~chosen], clean.images[~chosen])
    assert torch.equal(joined.images[30:], clean.images[twins])
    assert torch.equal(joined.labels, torch.cat([clean.labels, clean.labels[twins]]))
    assert torch.equal(rest.images, clean.images[~chosen | twins]) and len(rest) == 21


def test_the_whole_set_is_the_protected_set():
    clean = tiny(4, 3)
    protected = clean.with_images(255 - clean.images, "protected")
    joined = Partial().joined(clean, protected, RUN)
    assert joined.digest == protected.digest and joined.name == "protected"
    assert Partial().whole and not Partial(share=0.5).whole and not Partial(leaked=0.1).whole
    with pytest.raises(UserError, match="leaves none unprotected"):
        Partial().rest(clean, RUN)


def test_small_shares_have_names_of_their_own():
    assert str(Partial(leaked=0.002)) == ", 0.2% leaked" != str(Partial(leaked=0.001))
    assert str(Partial(share=0.333, which="random")) == ", 33.3% protected (random)"
    assert str(Partial(share=0.07)) == ", 7% protected (stratified)"


def test_shares_that_make_no_sense():
    for wrong in ({"share": 0.0}, {"share": 1.1}, {"leaked": -0.1}, {"leaked": 2.0}):
        with pytest.raises(UserError, match="a protected share is above 0"):
            Partial(**wrong)
    with pytest.raises(UserError, match="protects none"):
        Partial(share=0.05, which="classes").protected(tiny(4, 3), RUN)
