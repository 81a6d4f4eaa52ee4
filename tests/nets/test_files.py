"""Networks of users' files: the contract, what is told of broken ones, and identities that follow the code."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch

from miue import nets
from miue.attacks import attack, code_of
from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import Budget
from miue.defenses.network.weights import Weights
from miue.evaluation.checks import check_victims
from miue.grid.plan import Grid
from miue.grid.records import Sets
from miue.nets import NetFacts
from miue.testing import check_net, tiny
from miue.victims.fit import fit, keep_victim, kept_victim
from miue.victims.recipe import Recipe
from miue.victims.recipes import RECIPES, recipe

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\nfrom miue import NetFacts\n"
NET = (
    HEAD
    + '''
class Net(nn.Module):
    """As a researcher writes it: `view`, no normalisation, no idea of miue."""

    def __init__(self, classes, image_shape, width=4):
        super().__init__()
        self.conv1 = nn.Conv2d(image_shape[0], width, 3, 2, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.adaptive_avg_pool2d(x, 2)
        return self.fc(x.view(x.size(0), -1))


def made(classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, classes))


made.facts = NetFacts(lr=0.02)
LIMIT = 3
'''
)
SHAPE = (3, 16, 16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(NET)
    return path


@pytest.mark.parametrize("name", ["Net", "Net:width=6", "made"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_contract_of_a_plain_module(file: Path, name: str, channels: int):
    check_net(f"{file}:{name}", channels=channels)


def test_it_is_parted_into_features_and_head(file: Path):
    net = nets.build(f"{file}:Net:width=6", SHAPE, 5).eval()
    assert isinstance(net, nets.Classifier) and net.points == ("conv1", "conv2")
    assert [s.shape[1] for s in net.stages(torch.rand(2, *SHAPE))] == [6, 12, 48] and net.head.out_features == 5
    assert nets.build(f"{file}:made", SHAPE, 5).points == ("1",)


def test_pictures_arrive_as_they_are(file: Path):
    """A picture of zeros, through layers whose biases are zero, has features of zero."""
    net = nets.build(f"{file}:Net", SHAPE, 5).eval()
    for name, bias in net.trunk.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(bias)
    assert not net.embed(torch.zeros(1, *SHAPE)).any() and net.embed(torch.full((1, *SHAPE), 0.5)).any()


def test_building_draws_only_for_the_weights(file: Path):
    state = torch.get_rng_state()
    nets.build(f"{file}:Net", SHAPE, 5)
    inside = torch.get_rng_state()
    torch.set_rng_state(state)
    sys.modules[type(nets.build(f"{file}:Net", SHAPE, 5).trunk).__module__].Net(5, SHAPE)  # twice the weights
    twice = torch.get_rng_state()
    torch.set_rng_state(inside)
    nets.build(f"{file}:Net", SHAPE, 5)
    assert torch.equal(twice, torch.get_rng_state())


def test_a_classifier_of_the_package_is_taken_as_it_is(tmp_path: Path):
    (tmp_path / "a.py").write_text(
        "from miue.nets.small import small_cnn\n\n\n"
        "def own(classes, image_shape):\n    return small_cnn(image_shape, classes, 4)\n"
    )
    net = nets.build(f"{tmp_path}/a.py:own", SHAPE, 5)
    assert net.points == ("stem", "down1", "down2") and not net.plain
    check_net(f"{tmp_path}/a.py:own", (16,))


def test_points_can_be_named(tmp_path: Path):
    (tmp_path / "a.py").write_text(
        NET.replace("        self.fc =", '        self.points = ("conv2",)\n        self.fc =')
    )
    assert nets.build(f"{tmp_path}/a.py:Net", SHAPE, 5).points == ("conv2",)


# --- how it trains, and where it can be named ---


def test_facts_stand_beside_it(file: Path):
    assert nets.facts(f"{file}:Net") == NetFacts() and nets.facts(f"{file}:made") == NetFacts(lr=0.02)
    assert recipe("papers", f"{file}:Net").lr == RECIPES["papers"].lr
    assert recipe(f"papers:net={file}:made").lr == 0.02 and recipe(f"papers:net={file}:made,lr=0.3").lr == 0.3


def test_facts_may_ask_for_adamw(tmp_path: Path):
    (tmp_path / "a.py").write_text(NET.replace("lr=0.02", 'optimizer="adamw", lr=0.002'))
    given = recipe("papers", f"{tmp_path}/a.py:made")
    assert (given.optimizer, given.lr, given.weight_decay) == ("adamw", 0.002, RECIPES["papers"].weight_decay)


def test_it_is_a_victim(file: Path, run: Run, keeping: Run):
    plan = recipe(f"quick:net={file}:Net,epochs=2,batch=4")
    assert plan.victim == f"{file}:Net" and type(plan.described()["net"]) is str
    assert plan.described()["net_code"] == nets.code(plan.net) != ""
    assert check_victims([plan], tiny(size=16), tiny(size=16, seed=1), run) > 0
    net = fit(tiny(size=16), plan, run)
    keep_victim(net, tiny(size=16), plan, keeping)
    kept = kept_victim(tiny(size=16), plan, keeping)
    assert kept is not None
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), kept.parameters(), strict=True))


@pytest.mark.parametrize("method", ["mi-ue:quick", "tap:quick", "gue:quick", "em:quick"])
def test_it_is_a_surrogate(file: Path, run: Run, method: str):
    plan = attack(f"{method},surrogate={file}:Net,epochs=1")
    perturbation = plan(tiny(size=16), Budget(), run)
    code = nets.code(nets.named(f"{file}:Net"))
    assert f"'{file}:Net' of {code}" in perturbation.made_by
    assert code_of(f"{method},surrogate={file}:Net", plan) == f"+{code}" and code_of(method, attack(method)) == ""


def test_weights_from_a_file_fit_it(file: Path, run: Run, tmp_path: Path):
    plan = recipe(f"quick:net={file}:Net,epochs=1,batch=4")
    net = fit(tiny(size=16), plan, run)
    torch.save(net.trunk.state_dict(), tmp_path / "w.pt")
    other = nets.build(plan.net, SHAPE, 3)
    Weights(file=str(tmp_path / "w.pt")).check(other)
    assert torch.equal(other.get_parameter("trunk.conv1.weight"), net.get_parameter("trunk.conv1.weight"))


# --- identities ---


def test_another_code_is_another_victim_and_another_perturbation(file: Path):
    name = f"{file}:Net"
    before = recipe("quick", name), attack(f"em:quick,surrogate={name}")
    assert repr(recipe("quick", name)) == repr(before[0])
    file.write_text(NET.replace("F.relu(self.conv2", "F.silu(self.conv2"))  # at once, and of the same length
    after = recipe("quick", name), attack(f"em:quick,surrogate={name}")
    assert all(repr(a) != repr(b) for a, b in zip(before, after, strict=True))
    x = torch.rand(2, *SHAPE)
    torch.manual_seed(0)
    old = nets.build(before[0].net, SHAPE, 5)(x)
    torch.manual_seed(0)
    new = nets.build(after[0].net, SHAPE, 5)(x)
    assert not torch.equal(old, new)  # each trains the code that its repr names
    assert not (file.parent / "__pycache__").exists()


def test_a_name_goes_to_other_processes_with_its_code(file: Path):
    name = recipe("quick", f"{file}:Net").net
    for other in (pickle.loads(pickle.dumps(name)), copy.deepcopy(name)):
        assert repr(other) == repr(name) and other == name
    moved = pickle.loads(pickle.dumps(attack(f"em:quick,surrogate={name}")))
    assert repr(moved) == repr(attack(f"em:quick,surrogate={name}"))


def test_a_changed_file_is_tried_anew(file: Path):
    size = nets.tried(f"{file}:Net", SHAPE, 5)
    file.write_text(NET + "\n\nclass Other(Net):\n    pass\n\n\nNet = lambda classes: 3\n")
    with pytest.raises(UserError):
        nets.tried(f"{file}:Net", SHAPE, 5)
    file.write_text(NET)
    assert nets.tried(f"{file}:Net", SHAPE, 5) == size


def test_a_file_that_changed_meanwhile_is_told(file: Path):
    name = nets.named(f"{file}:Net")
    file.write_text(NET + "# changed\n")
    assert nets.build(name, SHAPE, 5).head.out_features == 5  # this process has the code
    for module in [module for module in sys.modules if module.startswith("miue_file_")]:
        del sys.modules[module]  # as in another process
    with pytest.raises(UserError, match=r"mine\.py was changed while it was in use"):
        nets.build(name, SHAPE, 5)


def test_loading_a_file_moves_no_generator(tmp_path: Path):
    (tmp_path / "a.py").write_text("import torch\ntorch.manual_seed(0)\n" + NET)
    state = torch.get_rng_state()
    nets.named(f"{tmp_path}/a.py:Net")
    assert torch.equal(state, torch.get_rng_state())


def test_cells_of_a_grid_follow_the_code(file: Path):
    net = f"{file}:Net"
    asked = {"attacks": [f"em:quick,surrogate={net}"], "recipes": ["quick", f"quick:net={net}"]}
    grid = Grid.model_validate({"data": "a", "out": "out", **asked})
    sets = Sets(source="", name="", data="", test="", shape=SHAPE, images=1, tested=1, classes=2, chance=0.5)
    before = grid.cells(sets)
    assert [cell.key for cell in grid.cells(sets)] == [cell.key for cell in before]
    file.write_text(NET + "# changed\n")
    pairs = list(zip(before, grid.cells(sets), strict=True))
    assert all((old.key == new.key) == (old.recipe == "quick" and "mine.py" not in old.attack) for old, new in pairs)


# --- mistakes: one message each ---


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.py:Net", "net file none.py does not exist"),
        ("FILE:Ne", "there is no 'Ne' in the file; in it are: Net, made"),
        ("FILE", "mine.py:NAME; in it are: Net, made"),
        ("FILE:LIMIT", "LIMIT is an int, not a class or function that makes a network"),
        ("FILE:Net:depth=3", "its options are width=<whole number>"),
        ("FILE:Net:width=x", "its options are width=<whole number>"),
        ("FILE:Net:wide", "its options are width=<whole number>"),
        ("FILE:made:width=3", "its options are none at all"),
    ],
)
def test_names_that_are_none(file: Path, name: str, told: str):
    with pytest.raises(UserError, match=re.escape(told)):
        nets.build(name.replace("FILE", str(file)), SHAPE, 5)


CNN = "nn.Sequential(nn.Conv2d(image_shape[0], 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
MODULE = "class net(nn.Module):\n    def __init__(self, classes, image_shape):\n        super().__init__()\n"
BROKEN = {
    "import nothing_of_this_name": "ModuleNotFoundError: No module named 'nothing_of_this_name' (line 5)",
    "def net(:": "does not load: SyntaxError",
    "raise SystemExit('--data is missing')": "does not load: SystemExit: --data is missing (line 5)",
    "net = nn.Linear(3, 4)": "net is a Linear, not a class or function that makes a network",
    "def net(num_classes): return None": "is called as net(classes=10, image_shape=(3, 32, 32)), and it is net(num_cl",
    "def net(classes, image_shape, depth): return None": "missing a required argument: 'depth'; give other parameters",
    "def net(classes, image_shape): return classes": "gives an int, not a torch.nn.Module",
    "def net(classes, image_shape): return 1 / 0": "cannot be made: ZeroDivisionError: division by zero (line 5)",
    f"def net(classes, image_shape): return {CNN} nn.Linear(4, classes + 1))": "gives (2, 6); 2 pictures of 5 classes",
    f"def net(classes, image_shape): return {CNN} nn.Linear(9, classes))": "pixels: RuntimeError: mat1 and mat2 shapes",
    f"def net(classes, image_shape): return {CNN} nn.Linear(4, classes), nn.Softmax(1))": "(no softmax after it)",
    f"def net(classes, image_shape): return {CNN} nn.Linear(4, classes), nn.ReLU(inplace=True))": "does not end in a",
    "def net(classes, image_shape): return nn.Sequential(nn.Conv2d(3, classes, 16), nn.Flatten())": "does not end in a",
    f"def net(classes, image_shape): return {CNN} nn.Linear(4, classes), nn.Unflatten(1, (1, -1)))": "gives (2, 1, 5);",
    MODULE + "    def forward(self, x): return x.mean((2, 3)), None": "gives a tuple; 2 pictures of 5 classes",
    MODULE: "NotImplementedError",
    "class net(nn.Sequential):\n    points = 'fc'\n"
    f"    def __init__(self, classes, image_shape): super().__init__(*{CNN} nn.Linear(4, classes)))": "points='fc' are",
    MODULE + "        self.fc = nn.Linear(16, classes)\n"
    "    def forward(self, x): return self.fc(F.dropout(x.mean((1, 2))))": "gives other values than those",
    MODULE + "        self.fc = nn.Linear(16, classes)\n"
    "    def forward(self, x): return self.fc(x.mean((1, 2))[:, : self.fc.in_features])": "without its last layer, fc,",
    "def net(classes, image_shape): return nn.Sequential(nn.Flatten(), nn.Linear(768, classes))\nnet.facts = 0.1": (
        "its `facts` are float; give miue.NetFacts(optimizer=..., lr=...)"
    ),
    "net = NetFacts(optimizer='adamw')": 'does not load: UserError: NetFacts: optimizer="adamw" needs a rate',
}


@pytest.mark.parametrize(("source", "told"), BROKEN.items())
def test_broken_networks_are_told_in_one_message(tmp_path: Path, source: str, told: str):
    (tmp_path / "broken.py").write_text(HEAD + source)
    for _ in range(2):  # what failed leaves nothing behind that would pass the second time
        with pytest.raises(UserError, match=re.escape(told)) as error:
            recipe("quick", f"{tmp_path}/broken.py:net")
            nets.tried(f"{tmp_path}/broken.py:net", SHAPE, 5)
        assert "broken.py" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises((AssertionError, UserError), match=re.escape(told)):
        nets.facts(f"{tmp_path}/broken.py:net")
        check_net(f"{tmp_path}/broken.py:net", (16,))


UNFAITHFUL = {
    "its state_dict is not all of it": MODULE
    + "        self.layers = [nn.Linear(16, 8)]\n        self.fc = nn.Linear(8, classes)\n"
    + "    def forward(self, x): return self.fc(self.layers[0](x.mean((1, 2))))",
    "another one gave the same": MODULE
    + "        torch.manual_seed(0)\n        self.body = nn.Linear(16, 8)\n        self.fc = nn.Linear(8, classes)\n"
    + "    def forward(self, x): return self.fc(self.body(x.mean((1, 2))))",
    "share weights, or something else": "shared = nn.Linear(16, 8)\n"
    + MODULE
    + "        self.body = shared\n        self.fc = nn.Linear(8, classes)\n"
    + "    def forward(self, x): return self.fc(self.body(x.mean((1, 2))))",
    "no gradient reaches the picture": MODULE
    + "        self.body = nn.Linear(16, 8)\n        self.fc = nn.Linear(8, classes)\n"
    + "    def forward(self, x): return self.fc(self.body(x.detach().mean((1, 2))))",
    "no gradient reaches the weights before its head": MODULE
    + "        self.body = nn.Linear(16, 8)\n        self.fc = nn.Linear(8, classes)\n"
    + "    def forward(self, x): return self.fc(self.body(x.mean((1, 2))).detach() + x.mean((1, 2))[:, :8])",
    "depend on the others in its batch": MODULE
    + "        self.body = nn.BatchNorm1d(16, track_running_stats=False)\n        self.fc = nn.Linear(16, classes)\n"
    + "    def forward(self, x): return self.fc(self.body(x.mean((1, 2))))",
    "it draws random numbers": MODULE
    + "        self.body = nn.Linear(16, 8)\n        self.fc = nn.Linear(8, classes)\n"
    + "    def forward(self, x):\n        F.dropout(x)\n        return self.fc(self.body(x.mean((1, 2))))",
    "no features by depth": MODULE
    + "        self.fc = nn.Linear(16, classes)\n        self.fc.weight.data.normal_()\n"
    + "    def forward(self, x): return self.fc(x.mean((1, 2)))",
    "cannot be used with pictures of 16 x 16 pixels": MODULE
    + "        self.body = nn.Linear(16, 8)\n        self.fc = nn.Linear(8, classes)\n    def forward(self, x):\n"
    + "        y = self.fc(self.body(x.mean((1, 2))))\n        return (y, y) if self.training else y",
}


@pytest.mark.parametrize(("told", "source"), UNFAITHFUL.items())
def test_the_contract_names_what_is_wrong(tmp_path: Path, told: str, source: str):
    (tmp_path / "broken.py").write_text(HEAD + source)
    with pytest.raises(AssertionError, match=re.escape(told)) as error:
        check_net(f"{tmp_path}/broken.py:net", (16,))
    assert "\n" not in str(error.value)


def test_a_recipe_in_python_takes_it_too(file: Path):
    with pytest.raises(UserError, match="there is no 'Nett' in the file"):
        Recipe(net=f"{file}:Nett")
    assert repr(Recipe(net=f"{file}:Net").net) == repr(recipe("papers", f"{file}:Net").net)
