"""Defenses that act on the network: weights from a file, training without labels, clean pictures afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from easy import easy
from miue import nets
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.defenses import SimCLR, Tune, Weights, combination, defense
from miue.evaluation.victim import train_victim
from miue.testing import tiny
from miue.training.batches import Batches
from miue.training.contrastive import contrast_loss, contrastive
from miue.victims.fit import fit
from miue.victims.recipe import Recipe

NET = "small-cnn:width=4"
FAST = Recipe(net=NET, epochs=3, batch=16, lr=0.05, augment=())


def network(run: Run, seed: str = "net", name: str = NET, size: int = 8) -> Any:
    with run.seeded(seed):
        return run.place(nets.build(name, (3, size, size), 3))


def tensors(net: Any, part: str = "") -> dict[str, torch.Tensor]:
    return {k: v.clone().contiguous() for k, v in net.state_dict().items() if k.startswith(part)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(v, b[k]) for k, v in a.items())


# --- weights from a file ---


@pytest.mark.parametrize("wrapped", ["plain", "module", "inside", "trunk"])
def test_the_trunk_is_that_of_the_file(tmp_path: Path, run: Run, wrapped: str):
    there = network(run, "other")
    path = tmp_path / ("w.safetensors" if wrapped in ("plain", "trunk") else "w.pt")
    if wrapped == "plain":
        save_file(tensors(there), path)
    elif wrapped == "trunk":
        save_file(tensors(there.trunk), path)
    else:
        named = {f"module.{k}": v for k, v in tensors(there).items()}
        torch.save({"state_dict": named} if wrapped == "inside" else named, path)
    net = network(run)
    head = tensors(net, "head.")
    Weights(file=str(path))(net, Batches(tiny(), run), run)
    assert same(tensors(net, "trunk."), tensors(there)) and same(head, tensors(net))


def test_what_holds_no_such_weights_is_refused(tmp_path: Path, run: Run):
    batches = Batches(tiny(), run)
    with pytest.raises(UserError, match=r"'missing\.pt' does not exist"):
        Weights(file="missing.pt")
    for name, payload in (("a.safetensors", b"no"), ("b.pt", b"no"), ("c.pt", b"")):
        (tmp_path / name).write_bytes(payload)
        with pytest.raises(UserError, match=name):
            Weights(file=str(tmp_path / name))(network(run), batches, run)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="no state dict"):
        Weights(file=str(tmp_path / "list.pt"))(network(run), batches, run)
    torch.save(UserError("code"), tmp_path / "code.pt")
    with pytest.raises(UserError, match="more than tensors"):
        Weights(file=str(tmp_path / "code.pt"))(network(run), batches, run)
    for name, told in (("small-resnet:width=4", "the same architecture"), ("small-cnn:width=8", "another stem")):
        save_file(tensors(network(run, name=name)), tmp_path / "other.safetensors")
        with pytest.raises(UserError, match=told):
            Weights(file=str(tmp_path / "other.safetensors"))(network(run), batches, run)


def test_other_weights_under_the_same_name_are_another_defense(tmp_path: Path, run: Run):
    path = tmp_path / "w.safetensors"
    save_file(tensors(network(run)), path)
    first, text = defense(f"weights:file={path}"), f"weights:file={path}"
    assert FAST.defended(first).defense == text  # the digest is in the identity, not in the spelling
    save_file(tensors(network(run, "other")), path)
    assert repr(defense(text)) != repr(first) and replace(first, probe=True).content != first.content
    with pytest.raises(UserError, match="weights needs file: weights:file="):
        defense("weights")


def test_a_probe_trains_the_head_alone(tmp_path: Path, run: Run):
    path = tmp_path / "w.safetensors"
    data = easy(8)
    with run.seeded("other"):
        there = run.place(nets.build(NET, data.shape, len(data.classes)))
    save_file(tensors(there), path)
    probed = fit(data, FAST.defended(Weights(file=str(path), probe=True)), run)
    tuned = fit(data, FAST.defended(Weights(file=str(path))), run)
    fresh = fit(data, FAST, run)
    assert same(tensors(probed, "trunk."), tensors(there))  # also what batch norm has counted
    assert not same(tensors(probed, "head."), tensors(tuned)) and not same(tensors(tuned, "trunk."), tensors(there))
    assert not same(tensors(tuned, "trunk."), tensors(fresh))
    assert all(p.requires_grad for p in probed.parameters())


# --- without labels ---


def test_contrast_is_learnt_without_labels(run: Run):
    data = easy(12, size=16)
    plan = SimCLR(epochs=30, batch=12, width=8, lr=1e-2)
    made = []
    for labels in (data.labels, data.labels.flip(0)):
        net = network(run, size=16)
        plan(net, Batches(replace(data, labels=labels), run), run)
        made.append(net)
    assert same(tensors(made[0]), tensors(made[1]))  # also the head: nobody trained it
    assert same(tensors(made[0], "head."), tensors(network(run, size=16)))
    x = data.images.float() / 255

    def value(net: Any) -> float:
        generator = run.rng("views")
        with torch.no_grad():
            return float(
                contrast_loss(net.eval().embed(torch.cat([contrastive(x, generator, 1.0) for _ in "ab"])), 0.5)
            )

    assert value(made[0]) < value(network(run, size=16)) - 0.1


class Stop(Exception):
    pass


def test_interrupted_it_ends_in_the_same_features(keeping: Run, run: Run, monkeypatch: pytest.MonkeyPatch):
    plan, data = SimCLR(epochs=3, batch=6, width=4), tiny(4, size=16)
    whole = network(run, size=16)
    plan(whole, Batches(data, run), run)
    real = Run.save

    def save(self: Run, name: str, state: Any, meta: Any) -> None:
        real(self, name, state, meta)
        raise Stop

    for _ in range(2):
        monkeypatch.setattr(Run, "save", save)
        with pytest.raises(Stop):
            plan(network(run, size=16), Batches(data, keeping), keeping)
    monkeypatch.setattr(Run, "save", real)
    net = network(run, size=16)
    plan(net, Batches(data, keeping), keeping)
    assert same(tensors(net), tensors(whole))


# --- clean pictures afterwards ---


def written(data: ImageSet, path: Path) -> str:
    names = {"images": data.images.permute(0, 2, 3, 1).numpy(), "labels": data.labels.numpy()}
    np.savez(path, **names, classes=np.array(data.classes))
    return str(path)


def test_clean_pictures_mend_what_wrong_labels_spoilt(tmp_path: Path, run: Run):
    data, test = easy(20), easy(10, seed=5)
    spoilt = replace(data, labels=(data.labels + 1) % len(data.classes))
    clean = written(easy(6, seed=3), tmp_path / "clean.npz")
    plan = replace(FAST, epochs=6)
    plain = train_victim("protected", spoilt, test, plan, run, None)
    tuned = train_victim("protected", spoilt, test, plan.defended(Tune(clean=clean, lr=0.05)), run, None)
    assert plain.last < 0.2 and tuned.last > 0.9 and tuned.best == tuned.last
    assert tuned.defense == f"tune:clean={clean},lr=0.05"


def test_tuning_is_deterministic_and_at_home_in_grey(tmp_path: Path, run: Run):
    for channels in (1, 3):
        data = tiny(channels=channels, size=16)
        plan, made = Tune(clean=written(data, tmp_path / f"{channels}.npz"), epochs=2, batch=4), []
        for seed in (98, 99):
            torch.manual_seed(seed)
            with run.seeded("net"):
                net = run.place(nets.build(NET, data.shape, 3))
            plan(net, Batches(data, run), run)
            made.append(tensors(net))
        assert same(*made)
    other = tiny(classes=4, size=16)
    with pytest.raises(UserError, match="its classes"):
        plan(net, Batches(other, run), run)


def test_the_head_alone_and_the_first_of_every_class(tmp_path: Path, run: Run):
    data = easy(8)
    clean = written(data, tmp_path / "clean.npz")
    net = fit(data, FAST, run)
    trunk, head = tensors(net, "trunk."), tensors(net, "head.")
    Tune(clean=clean, head=True, epochs=2)(net, Batches(data, run), run)
    assert same(trunk, tensors(net)) and not same(head, tensors(net))
    few = Tune(clean=clean, per_class=2).pictures(data)
    assert few.labels.bincount().tolist() == [2] * len(data.classes)


def test_other_pictures_at_the_same_place_are_another_defense(tmp_path: Path):
    clean = written(easy(4), tmp_path / "clean.npz")
    first = defense(f"tune:clean={clean}")
    written(easy(4, seed=1), tmp_path / "clean.npz")
    assert repr(defense(f"tune:clean={clean}")) != repr(first)
    with pytest.raises(UserError, match="tune needs clean"):
        defense("tune:epochs=3")
    assert [part.slot for part in combination(f"gray+tune:clean={clean}+simclr")] == ["purify", "finish", "start"]
