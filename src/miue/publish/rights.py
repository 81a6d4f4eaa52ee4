"""Reservations around a set: files for the web server that shows it, and other rights in files that are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from miue.core.errors import UserError
from miue.core.files import flush_all, write_atomically
from miue.data.folder import private_of
from miue.data.picture import Picture, Unfit, decode, encode, quiet
from miue.data.rights import TOLD, VALUES, Reservation, Rights, clean, host
from miue.data.source import FILES, sha256, some
from miue.publish.manifest import FINAL, Line, finished, write_lines
from miue.publish.sinks import Form
from miue.publish.verify import PUBLISHED

Content = Callable[[Line, Picture, bytes], tuple[bytes, dict[str, Any]]]
AS_OF = "2026-11-26"  # state of knowledge of the mechanisms below
AGENTS = (
    "CCBot", "GPTBot", "ClaudeBot", "Google-Extended", "Applebot-Extended", "Meta-ExternalAgent", "Bytespider",
    "Amazonbot", "ImagesiftBot", "img2dataset",
)  # fmt: skip
MAINTAINED = "https://github.com/ai-robots-txt/ai.robots.txt"
ROBOTS = "noai, noimageai"
USAGE = "train-ai=n"  # of the AIPREF draft, whose words may change
TITLE = "# What goes on the web server\n"  # of README.md, which is the first file that comes and the last that goes
NAMES = (
    "README.md", "tdmrep.json", "robots.txt.part", "nginx.conf.part", "apache.htaccess", "policy.json",
    "LICENSE-REQUEST.md",
)  # fmt: skip


def rights_of(out: Path) -> Path:
    """The folder beside an output with what its publisher puts on the web server."""
    private = private_of(out)
    return private.with_name(f"{private.name.removesuffix('.private')}.rights")


def server_folder(out: Path, rights: Rights) -> Path:
    """The same folder. Raises UserError if something else lies where these rights are to be written."""
    folder = rights_of(out)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: is no folder, and the files for the web server go there; move it away")
    if server_files(rights) and (foreign := _foreign(folder)):
        raise UserError(f"{foreign}: was not written by miue, and the files for the web server go there; move it away")
    return folder


def _foreign(folder: Path) -> Path | None:
    """The first file with one of our names, in a folder that has not our README.md."""
    readme = folder / "README.md"
    if readme.is_file() and readme.read_bytes().startswith(TITLE.encode()):
        return None
    return next((folder / name for name in NAMES if (folder / name).exists()), None)


def write_rights(out: Path, rights: Rights) -> Path | None:
    """Write the files for the web server, or remove ours where nothing is reserved. Returns the folder.

    The same rights give the same bytes. Raises UserError if a link, or a file of somebody else, lies in the way.
    """
    folder, texts = server_folder(out, rights), server_files(rights)
    for name in NAMES:
        if name in texts:
            write_atomically(folder / name, texts[name].encode())
    if not _foreign(folder):
        for path in (folder / name for name in reversed(NAMES) if name not in texts):
            if path.is_file():
                path.unlink()
    if not texts and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return folder if texts else None


def server_files(rights: Rights) -> dict[str, str]:
    """Names and texts of the files for the web server; none where nothing is reserved."""
    if not VALUES[rights.value].startswith("DMI-PROHIBITED"):
        return {}
    policy = f"{host(rights.url)}{rights.path}policy.json" if rights.contact else ""
    rule = {"location": rights.path, "tdm-reservation": 1} | ({"tdm-policy": policy} if policy else {})
    robots = ROBOTS + (", noindex" if rights.no_search else "")
    headers = {"tdm-reservation": "1", "X-Robots-Tag": robots, "Content-Usage": USAGE}
    headers |= {"tdm-policy": policy} if policy else {}
    nginx = "".join(f'    add_header {name} "{value}" always;\n' for name, value in headers.items())
    apache = "".join(f'    Header always set {name} "{value}"\n' for name, value in headers.items())
    texts = {
        "tdmrep.json": _json([rule]),
        "robots.txt.part": _robots(rights),
        "nginx.conf.part": f"location {rights.path} {{\n{nginx}}}\n",
        "apache.htaccess": f"<IfModule mod_headers.c>\n{apache}</IfModule>\n",
        "LICENSE-REQUEST.md": _request(rights),
        "README.md": _readme(rights, policy),
    }
    return texts | ({"policy.json": _json(_policy(rights, policy))} if policy else {})


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _robots(rights: Rights) -> str:
    """Two groups. Each ends in a rule: a parser takes groups without a rule between them for one."""
    search = "no" if rights.value == "no-mining" else "yes"
    agents = "".join(f"User-agent: {name}\n" for name in AGENTS)
    return (
        f"# as of {AS_OF}; a maintained list of agents: {MAINTAINED}\n"
        f"{agents}Disallow: {rights.path}\n\n"
        "# Content Signals (CC0) and the AIPREF draft, on which there is no consensus yet\n"
        f"User-agent: *\nContent-Signal: search={search}, ai-train=no\nContent-Usage: {rights.path} {USAGE}\n"
        f"{'Disallow: ' + rights.path if rights.no_search else 'Allow: /'}\n"
    )


def _policy(rights: Rights, uid: str) -> dict[str, object]:
    """An offer in the TDMRep profile of ODRL: mining needs consent."""
    name = clean(rights.creator) or clean(rights.copyright) or host(rights.url)
    return {
        "@context": ["http://www.w3.org/ns/odrl.jsonld", "http://www.w3.org/ns/tdmrep.jsonld"],
        "@type": "Offer",
        "profile": "http://www.w3.org/ns/tdmrep",
        "uid": uid,
        "assigner": {"vcard:fn": name, "vcard:hasEmail": rights.contact, "vcard:hasURL": rights.url},
        "permission": [{"action": "tdm:mine", "duty": [{"action": "obtainConsent"}]}],
    }


def _request(rights: Rights) -> str:
    return f"# Rights in these pictures\n\n{_words(rights)}"


def notice(rights: Rights) -> str:
    """The part of PROTECTED.md on rights; empty where nothing is reserved."""
    if not VALUES[rights.value].startswith("DMI-PROHIBITED"):
        return ""
    return (
        f"\n## Rights\n\n{_words(rights)}\nWhere pictures have metadata, those say it, too (XMP `plus:DataMining`). So "
        "do content credentials (C2PA), where\npictures are signed.\n"
    )


def _words(rights: Rights) -> str:
    contact = rights.contact.removeprefix("mailto:") or "the owner of these pictures"
    owner = clean(rights.creator or rights.copyright)
    lines = [
        *([f"Owner: {owner}", ""] if owner else []),
        f"{_in_words(rights)} Ask {contact} for permission, and say what the pictures are for.",
        *(["", f"More: {rights.url}"] if rights.url else []),
        *(["", clean(rights.text)] if clean(rights.text) else []),
    ]
    return "\n".join(lines) + "\n"


def _in_words(rights: Rights) -> str:
    return {
        "no-generative": "The owner reserves the use of these pictures for training generative models.",
        "no-training": "The owner reserves the use of these pictures for training any model.",
        "search-only": "The owner reserves text and data mining of these pictures, except for a search index.",
        "constraint": "The owner reserves text and data mining of these pictures under the terms below.",
        "no-mining": "The owner reserves text and data mining of these pictures.",
    }[rights.value]


def _readme(rights: Rights, policy: str) -> str:
    rows = {
        "tdmrep.json": "to https://HOST/.well-known/tdmrep.json (TDMRep, W3C Community Group)",
        "robots.txt.part": "into https://HOST/robots.txt",
        "nginx.conf.part": "into the configuration of nginx, or",
        "apache.htaccess": "as .htaccess beside the pictures, where Apache serves them",
        **({"policy.json": f"to {policy} (whom to ask)"} if policy else {}),
        "LICENSE-REQUEST.md": "as text on a page near the pictures, for people",
    }
    listed = "\n".join(f"- `{name}`: {where}" for name, where in rows.items())
    return (
        f"{TITLE}\nThe pictures say {VALUES[rights.value]} in their XMP. On the server, for "
        f"those below {rights.path}, as of {AS_OF}:\n\n{listed}\n\nThe X-Robots-Tag header of the picture itself is "
        "what img2dataset reads, unless its user switches that off. `train-ai` of the AIPREF draft means generative "
        f"models alone.\n\n{TOLD}\n"
    )


def rewrite(out: Path, rights: Rights, form: Form, tick: Callable[[], None]) -> list[Line]:
    """Write other rights into every file of an output; pixels stay, bit by bit. Returns the new lines of the manifest.

    Killed? The same call goes on, with the same bytes as result. Raises UserError, before anything is written, if the
    output is a table, if a file does not show what was written, or if a link lies where `write_rights` writes.
    """

    def content(line: Line, picture: Picture, before: bytes) -> tuple[bytes, dict[str, Any]]:
        return encoded(line, picture, rights, form), {"rights": rights.key(line.reserved), "signed": False}

    server_folder(out, rights)  # what follows the files must be possible, too
    mend = "run its protect command once more with --overwrite and other rights: the noise is not computed again"
    return change_files(out, mend, content, tick)


def encoded(line: Line, picture: Picture, rights: Rights, form: Form) -> bytes:
    """The file of a published picture with these rights, the same bytes as `write` makes. Nothing is signed in it."""
    meta = picture.meta
    return encode(picture, form, rights.packet(line.reserved, meta.artist, meta.copyright))


def change_files(out: Path, mend: str, content: Content, tick: Callable[[], None]) -> list[Line]:
    """Write every file of an output anew and return the new lines of the manifest; pixels stay, bit by bit.

    mend: what to do where the output is a table. content: a function from a line, its picture and the bytes of its file
    to new bytes and what they change in the line. Killed? The same call goes on. Raises UserError for a table, and,
    before anything is written, for files that do not show what was written.
    """
    plan, lines = finished(private_of(out))
    if plan.kind not in FILES:
        raise UserError(f"{out}: is a table; {mend}")
    with quiet():
        every = (_problem(out / line.out, line) for line in lines if line.status == "protected")
        if problems := [problem for problem in every if problem]:
            raise UserError(
                f"{some(problems, 3)}; nothing was written. `miue verify {out}` says what else is wrong, and the "
                "command that made the files mends them, with the rights that they have now"
            )
        fresh = [_changed(out, line, content, tick) if line.status == "protected" else line for line in lines]
    flush_all(out / line.out for line in fresh if line.out)
    write_lines(private_of(out) / FINAL, fresh)
    return fresh


def _problem(path: Path, line: Line) -> str:
    """The reason why a file is not written anew; empty if there is none."""
    if path.is_symlink():
        return f"{path}: is a link, and nothing is written through links"
    try:
        before = path.read_bytes()
        shown = sha256(before) == line.out_sha256 or decode(before, PUBLISHED).digest == line.out_pixels
    except (OSError, Unfit) as error:
        return f"{path}: cannot be read ({error})"
    return "" if shown else f"{path}: does not show the picture that was written"


def _changed(out: Path, line: Line, content: Content, tick: Callable[[], None]) -> Line:
    path = out / line.out
    if problem := _problem(path, line):  # it changed since all were looked at
        raise UserError(f"{problem}; files before it are written: the same command goes on once that is mended")
    before = path.read_bytes()
    after, update = content(line, decode(before, PUBLISHED), before)
    if decode(after, PUBLISHED).digest != line.out_pixels:
        raise RuntimeError(f"{path}: writing changed its pixels; it was left as it is")
    if after != before:
        write_atomically(path, after, flush=False)
        if path.read_bytes() != after:
            raise OSError(f"{path}: what is read back differs from what was written")
    tick()
    return line.model_copy(update={"out_bytes": len(after), "out_sha256": sha256(after), **update})


def shown(payload: bytes) -> Reservation:
    """The statement of a file: its key of the PLUS vocabulary, and the names in its XMP, or else in its EXIF."""
    try:
        meta = decode(payload, PUBLISHED).meta
    except Unfit as error:
        return Reservation(broken=error.reason)
    own = meta.reservation
    return replace(own, creator=own.creator or meta.artist, copyright=own.copyright or meta.copyright)
