"""The documents: their Python runs, their links lead somewhere, the files that they mention exist.

Blocks of one page run one after the other in one empty folder. An HTML comment in the line before a block says more:
`<!-- slow -->`: a slow test. `<!-- fragment -->`: does not run by itself. `<!-- example: theirs.py -->`: is saved under
that name first.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

import miue

ROOT = Path(miue.__file__).parent.parent.parent
README = ROOT / "README.md"
PAGES = [p for p in (README, *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("C*.md"))) if p.is_file()]
SVG = "{http://www.w3.org/2000/svg}"
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^>]*?) -->\n\s*)?^```(?P<kind>\w*)\n(?P<body>.*?)^```", re.M | re.S)
MISSING = (
    [] if README.is_file() else [pytest.param(None, marks=pytest.mark.skip(reason="README.md is not written yet"))]
)


@dataclass(frozen=True)
class Block:
    kind: str
    mark: str
    body: str


def blocks(page: Path) -> list[Block]:
    return [Block(m["kind"], m["mark"] or "", m["body"]) for m in BLOCK.finditer(page.read_text())]


def runnable(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.kind == "python" and b.mark != "fragment"]


def with_python() -> list:
    made = list(MISSING)
    for page in PAGES:
        if found := runnable(page):
            marks = [pytest.mark.slow] if any(b.mark == "slow" for b in found) else []
            made.append(pytest.param(page, id=page.relative_to(ROOT).as_posix(), marks=marks))
    return made


@pytest.mark.parametrize("page", with_python())
def test_python_in_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each block as a script of its own; those that were saved under a name can be imported by later ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        for number, block in enumerate(runnable(page)):
            name = block.mark.removeprefix("example: ") if block.mark.startswith("example: ") else f"block_{number}.py"
            (tmp_path / name).write_text(block.body)
            made = runpy.run_path(name, run_name="__main__")
            for test in [f for key, f in made.items() if key.startswith("test_")]:
                test()
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


@pytest.mark.parametrize("page", [*MISSING, *(pytest.param(p, id=p.name) for p in PAGES)])
def test_other_blocks_are_what_they_say(page: Path):
    for block in blocks(page):
        if block.kind == "toml":
            tomllib.loads(block.body)
        if block.kind == "json":
            json.loads(block.body)
        if block.kind == "python" and block.mark == "fragment":
            compile(f"[{{{block.body}}}]" if block.body.startswith('"') else block.body, str(page), "exec")


def anchors(page: Path) -> set[str]:
    """How GitHub names the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*MISSING, *(pytest.param(p, id=p.name) for p in PAGES)])
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name}: {target}"
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [*MISSING, *(pytest.param(p, id=p.name) for p in PAGES)])
def test_files_that_are_mentioned_exist(page: Path):
    """Paths of this project in code type: `src/...`, `docs/...`, `tests/...`, `benchmarks/...`, `attacks/...`."""
    own = re.findall(r"`((?:src|docs|tests|benchmarks|attacks|nets|data|\.ci)/[\w./-]+)`", page.read_text())
    for path in own:
        places = (ROOT / path, ROOT / "src" / "miue" / path)
        assert any(p.exists() for p in places), f"{page.name}: {path}"


def commands(page: Path) -> list[list[str]]:
    text = "\n".join(b.body for b in blocks(page) if b.kind in ("", "sh", "bash", "console", "shell", "text"))
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ").split() for line in lines if re.match(r"\s*(\$ )?miue \w", line)]


@pytest.mark.parametrize("page", [*MISSING, *(pytest.param(p, id=p.name) for p in PAGES)])
def test_commands_use_options_that_there_are(page: Path):
    for command in commands(page):
        check_command(command, page)


def check_command(command: list[str], page: Path) -> None:
    from typer.main import get_command

    from miue.cli.main import app

    verbs = get_command(app).commands  # type: ignore[attr-defined]
    assert command[1] in verbs, " ".join(command)
    verb = verbs[command[1]]
    verb = getattr(verb, "commands", {}).get(" ".join(command[2:3]), verb)  # of a group, as `miue rights write`
    allowed = {option for p in verb.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
    given = {word.split("=")[0] for word in command[2:] if re.match(r"--?[a-z]", word)}
    assert given <= allowed, f"{page.name}: {' '.join(command)}: {given - allowed}"


def test_the_drawing_of_the_way_stands_alone_and_is_told_in_words():
    """Its commands and options are there, it asks for nothing, and who does not see it reads the same steps."""
    path = ROOT / "docs" / "way.svg"
    root = ElementTree.parse(path).getroot()
    drawn = {
        name: [e.text or "" for e in root.iter(f"{SVG}text") if e.get("class") == name] for name in ("code", "name")
    }
    for command in drawn["code"]:
        check_command(command.split(), path)
    text = " ".join(each.text or "" for each in root.iter(f"{SVG}text"))
    from typer.main import get_command

    from miue.cli.main import app

    options = {o for verb in get_command(app).commands.values() for p in verb.params for o in p.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"--[a-z-]+", text)) <= options and len(drawn["code"]) == 5
    assert not re.search(r"href|url\(|@import|<script", path.read_text())
    (alt,) = re.findall(r"!\[([^]]+)\]\(docs/way\.svg\)", README.read_text())
    for told in (alt.lower(), (root.findtext(f"{SVG}desc") or "").lower()):
        assert all(step.lower() in told for step in drawn["name"]), told


@pytest.mark.parametrize("page", [*MISSING, *(pytest.param(p, id=p.name) for p in PAGES)])
def test_methods_that_are_mentioned_can_be_spelled(page: Path):
    from miue.attacks import attack
    from miue.victims.recipes import recipe

    words = re.findall(r"--(attack|recipe)[ =]([\w:.,=-]+)", page.read_text())
    for kind, text in words:
        if ".py:" not in text and "generator=" not in text:  # these name a file of the reader's
            (attack if kind == "attack" else recipe)(text)
