"""The verbs for somebody who owns what was published: pictures that come later, and rights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miue.cli.options import (
    Copyright,
    Creator,
    Device,
    Download,
    DryRun,
    Json,
    Memory,
    Out,
    Quiet,
    RightsContact,
    RightsNoSearch,
    RightsPath,
    RightsText,
    RightsUrl,
    RightsValue,
    Split,
)

FAILED_INPUTS = 1


def add(
    out: Out,
    new: Annotated[
        str, typer.Argument(metavar="PICTURES", help="A folder of class folders; what OUT has already is left out.")
    ],
    split: Split = None,
    device: Device = "auto",
    memory: Memory = None,
    download: Download = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Protect new pictures of known classes and write them to OUT. Its other files stay as they are.

    Settings and seed are those of OUT. PICTURES may be its own source, grown. OUT.private makes this possible: keep it.
    Stopped or killed? The same command goes on where it was. Exit code 1 where something new is not in OUT.
    """
    from miue.cli import show, telling
    from miue.core.device import byte_count
    from miue.core.run import Run
    from miue.workflows import add as additions
    from miue.workflows.forecast import planned_addition

    run = Run(device_name=device, quiet=quiet or json, memory=byte_count(memory) if memory else None)
    addition = additions.examined(out, new, split, download)
    if dry_run:
        show.plan(planned_addition(addition, run), json)
        return
    record = additions.carry_out(addition, run)
    show.record(record, telling.added(addition, record), json)
    if set(addition.new.source.summary()) - {"ok"}:
        raise typer.Exit(FAILED_INPUTS)


rights = typer.Typer(no_args_is_help=True, help="What the files say that you reserve: write it, read it back.")


@rights.command()
def write(
    out: Out,
    value: RightsValue,
    creator: Creator = "",
    copyright: Copyright = "",
    rights_url: RightsUrl = "",
    rights_text: RightsText = "",
    rights_contact: RightsContact = "",
    rights_path: RightsPath = "/",
    rights_no_search: RightsNoSearch = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write other rights into every file of OUT, and OUT.rights. Pixels stay; no noise is computed.

    Stopped or killed? The same command goes on and ends in the same files.
    """
    import miue
    from miue.cli import show, telling
    from miue.core.run import Run

    reserved = miue.Rights(
        value=value, creator=creator, copyright=copyright, url=rights_url, text=rights_text, contact=rights_contact,
        path=rights_path, no_search=rights_no_search,
    )  # fmt: skip
    record = miue.write_rights(out, reserved, Run(quiet=quiet or json))
    show.record(record, telling.rewritten(out, record), json)


@rights.command(name="show")
def show_rights(
    path: Annotated[Path, typer.Argument(help="A picture, or a folder of pictures of anybody.")], json: Json = False
) -> None:
    """Say what each file reserves, by its XMP."""
    import miue
    from miue.cli import show, telling

    keys = miue.read_rights(path)
    show.record(telling.Reserved(rights=dict(keys)), telling.reserved(keys), json)


@rights.command()
def files(out: Out) -> None:
    """Write OUT.rights, the files for your web server, once more."""
    import miue
    from miue.cli import show, telling
    from miue.workflows.record import RunRecord

    miue.write_server_files(out)
    show.record(record := RunRecord.of(out), telling.about_rights(out, record.settings.rights), False)


VERBS = (add,)
