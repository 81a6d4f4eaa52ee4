"""What must stay true of the source as text: who may import, step, round, open and name what."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import miue

SRC = Path(miue.__file__).parent
ROOT = SRC.parent.parent
FILES = {path.relative_to(SRC).as_posix(): path for path in sorted(SRC.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def nodes(name: str) -> Iterator[ast.AST]:
    return ast.walk(TREES[name])


def calls(name: str) -> Iterator[tuple[ast.Call, str, bool]]:
    """(call, the last part of what is called, whether it is a method or an attribute)."""
    for node in nodes(name):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node, node.func.attr, True
            elif isinstance(node.func, ast.Name):
                yield node, node.func.id, False


def imported(name: str) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in nodes(name):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def texts(name: str) -> Iterator[ast.Constant]:
    """String literals that are no docstrings."""
    documented = {
        id(node.body[0].value)
        for node in nodes(name)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes(name):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node


def where(found: dict[str, list[int]]) -> list[str]:
    return [f"{name}:{line}" for name, lines in found.items() for line in lines]


def test_the_source_was_found():
    assert len(FILES) > 30 and "core/types.py" in FILES and "publish/write.py" in FILES


def test_one_place_steps_an_optimizer():
    found = {n: [c.lineno for c, f, method in calls(n) if method and f in ("step", "backward")] for n in FILES}
    assert {n for n, lines in found.items() if lines} == {"training/loop.py"}, where(found)
    assert len(found["training/loop.py"]) == 2


DEVICES = {"cuda", "mps", "cpu", "xpu", "gloo", "nccl"}


def test_one_place_names_a_device():
    """Others say `.cpu()` for "into main memory" and use `run.device`."""
    found = {n: [t.lineno for t in texts(n) if str(t.value).partition(":")[0] in DEVICES] for n in FILES}
    found["attacks/cuda.py"].pop()  # the name of an attack
    assert {n for n, lines in found.items() if lines} == {"core/device.py"}, where(found)
    moves = {n: [c.lineno for c, f, method in calls(n) if method and f in DEVICES - {"cpu"}] for n in FILES}
    assert not where(moves)
    asked = {n for n in FILES for node in nodes(n) if isinstance(node, ast.Attribute) and node.attr in ("cuda", "mps")}
    assert asked == {"core/device.py"}


def test_one_place_opens_pictures():
    found = {name: {m for m in imported(name) if m.partition(".")[0] in ("PIL", "pillow_heif")} for name in FILES}
    outside = {
        name: modules for name, modules in found.items() if modules and not name.startswith(("data/", "publish/"))
    }
    assert outside == {"cli/doctor.py": {"PIL", "PIL.features"}}
    others = {n for n in FILES if any(m.partition(".")[0] in ("cv2", "imageio", "pyarrow") for m in imported(n))}
    assert all(name.startswith(("data/", "publish/")) for name in others)


ROUNDING = {"round", "round_", "rint", "floor", "floor_", "trunc", "trunc_", "fix"}


def test_one_place_rounds_pixel_values():
    """types.py rounds deltas; shapes.py draws; show.py rounds what it prints; jpeg.py its coefficients.

    rows.py keeps floats in few bits.
    """
    found = {n: [c.lineno for c, f, _ in calls(n) if f in ROUNDING] for n in FILES}
    allowed = {"core/types.py", "data/shapes.py", "cli/show.py", "training/jpeg.py", "training/rows.py"}
    assert {n for n, lines in found.items() if lines} <= allowed, where(found)
    assert len(found["core/types.py"]) == 1
    assert all(not method for c, f, method in calls("cli/show.py") if f in ROUNDING)  # numbers, not tensors


def test_conversion_to_integers_never_truncates_a_float_picture():
    """`.to(torch.int8)` and `.astype(np.uint8)` of something that was just multiplied or divided truncates."""
    small = {"uint8", "int8", "int16"}
    found: dict[str, list[int]] = {}
    for name in FILES:
        for call, function, method in calls(name):
            if method and function in ("to", "astype", "type") and call.args:
                kind = ast.unparse(call.args[0]).rpartition(".")[2]
                inner = call.func.value  # type: ignore[union-attr]
                risky = isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Mult | ast.Div)
                if kind in small and risky:
                    found.setdefault(name, []).append(call.lineno)
    assert not where(found)


def test_nothing_is_executed_or_unpickled():
    found: dict[str, list[int]] = {}
    for name in FILES:
        if {m.partition(".")[0] for m in imported(name)} & {
            "pickle",
            "cloudpickle",
            "dill",
            "marshal",
            "shelve",
            "joblib",
        }:
            found.setdefault(name, []).append(0)
        for call, function, method in calls(name):
            owner = ast.unparse(call.func.value) if method else ""  # type: ignore[union-attr]
            options = {k.arg: ast.unparse(k.value) for k in call.keywords}
            bad = (
                (not method and function in ("eval", "exec", "compile", "__import__"))
                or (owner == "os" and function in ("system", "popen"))
                or (owner == "torch" and function == "load" and options.get("weights_only") != "True")
                or (owner == "np" and function == "load" and options.get("allow_pickle", "False") != "False")
                or options.get("shell") == "True"
            )
            if bad:
                found.setdefault(name, []).append(call.lineno)
    assert not where(found)


def test_nothing_calls_home():
    network = {"requests", "urllib", "http", "socket", "ftplib", "aiohttp", "httpx", "huggingface_hub"}
    assert not [n for n in FILES if {m.partition(".")[0] for m in imported(n)} & network]
    for name in FILES:
        for call, _, _ in calls(name):
            for keyword in call.keywords:
                if keyword.arg == "pretrained":
                    assert ast.unparse(keyword.value) == "False", f"{name}:{call.lineno}"


def test_types_import_only_the_errors_from_the_package():
    assert not [m for m in imported("core/types.py") if m.startswith("miue") and not m.startswith("miue.core.errors")]


def test_only_generators_that_were_handed_over_are_drawn_from():
    """`torch.rand(...)` without a generator, `random` and numpy's global generator shift everybody's draws."""
    found: dict[str, list[int]] = {}
    drawing = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"}
    for name in FILES:
        if "random" in imported(name):
            found.setdefault(name, []).append(0)
        for call, function, method in calls(name):
            owner = ast.unparse(call.func.value) if method else ""  # type: ignore[union-attr]
            unseeded = owner == "torch" and function in drawing and "generator" not in {k.arg for k in call.keywords}
            global_numpy = owner == "np.random" and function != "default_rng"
            if unseeded or global_numpy:
                found.setdefault(name, []).append(call.lineno)
    assert not where(found)


def test_imports_point_down():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_long(name: str):
    assert sum(bool(line.strip()) for line in FILES[name].read_text().splitlines()) <= 350


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("name", FILES)
def test_what_is_public_is_documented(name: str):
    tree = TREES[name]
    assert ast.get_docstring(tree), f"{name} has no docstring"
    missing = [n.name for n in public(tree.body) if not ast.get_docstring(n)]
    assert not missing


def test_what_is_exported_exists():
    assert sorted(miue.__all__) == miue.__all__ and all(hasattr(miue, name) for name in miue.__all__)


def test_there_is_no_stray_marker_or_print():
    """Only the command line prints; nothing is left to do."""
    printing = {n: [c.lineno for c, f, m in calls(n) if f == "print" and not m] for n in FILES}
    assert {n for n, lines in printing.items() if lines} <= {
        "cli/checks.py",
        "cli/show.py",
        "cli/main.py",
        "cli/listing.py",
        "cli/examples.py",
        "cli/streams.py",
        "core/progress.py",
    }, where(printing)
    for name, path in FILES.items():
        for marker in ("TODO", "FIXME", "XXX", "breakpoint("):
            assert marker not in path.read_text(), name


def test_the_page_names_every_room_and_no_other():
    page = (ROOT / "docs/architecture.md").read_text()
    rooms = {path.stem for path in SRC.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    rooms |= {path.stem for path in SRC.glob("*.py") if not path.stem.startswith("__")}
    table = page.partition("## The rooms")[2].partition("## The way")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == rooms
    assert (
        set(re.findall(r"\b(\w+)\b(?= -->| &|$)", table.partition("```mermaid")[2].partition("```")[0], re.M)) >= rooms
    )


def test_the_files_of_the_page_exist():
    page = (ROOT / "docs/architecture.md").read_text()
    named = {name for name in re.findall(r"`([\w/]+\.py)`", page) if not name.startswith("benchmarks/")}
    assert named and not [name for name in named if name not in FILES]
