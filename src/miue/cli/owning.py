"""The verbs for somebody who owns what is published: its protection, pictures that come later, and rights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miue.cli import tracing
from miue.cli.codes import FAILED_INPUTS
from miue.cli.options import (
    Attack,
    Beacon,
    Canvas,
    Config,
    Copyright,
    Creator,
    Device,
    Download,
    DropColumns,
    DryRun,
    Json,
    Memory,
    NewCopyright,
    NewCreator,
    NewRightsContact,
    NewRightsNoSearch,
    NewRightsPath,
    NewRightsText,
    NewRightsUrl,
    Out,
    Overwrite,
    Quiet,
    RightsContact,
    RightsNoSearch,
    RightsPath,
    RightsText,
    RightsUrl,
    RightsValue,
    Seed,
    Size,
    Split,
    Trace,
    TraceKeys,
    TraceOnly,
    TraceStrength,
    TraceUnmeasured,
)
from miue.core.launcher import started


def protect(
    source: Annotated[str, typer.Argument(help="A folder of class folders, parquet, .npz, or a set such as `shapes`.")],
    out: Out,
    attack: Attack = "em:lasting",
    budget: Size = None,
    canvas: Canvas = None,
    split: Split = None,
    format: Annotated[str, typer.Option(help="File format of the output, lossless: png or webp.")] = "png",
    seed: Seed = 0,
    device: Device = "auto",
    processes: Annotated[int, typer.Option(help="Processes to share the work, one GPU each.")] = 1,
    memory: Memory = None,
    max_pixels: Annotated[int, typer.Option(help="Larger pictures are skipped.")] = 50_000_000,
    frames: Annotated[str, typer.Option(help="Pictures with several frames: refuse, or first (of them).")] = "refuse",
    drop_columns: DropColumns = None,
    rights: RightsValue = "none",
    creator: Creator = "",
    copyright: Copyright = "",
    rights_url: RightsUrl = "",
    rights_text: RightsText = "",
    rights_contact: RightsContact = "",
    rights_path: RightsPath = "/",
    rights_no_search: RightsNoSearch = False,
    trace: Trace = False,
    trace_only: TraceOnly = False,
    trace_strength: TraceStrength = None,
    trace_keys: TraceKeys = 1,
    trace_unmeasured: TraceUnmeasured = False,
    beacon: Beacon = None,
    download: Download = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    config: Config = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a protected copy of a set of pictures.

    Same tree, same names, lossless files; labels and order stay. Nothing of the source is changed.
    Stopped or killed? The same command goes on where it was and ends in the same files.
    Exit code 1 where something of SOURCE is not in OUT, a text file for instance: each is told with its reason.
    """
    import miue
    from miue.cli import show, telling
    from miue.core.device import byte_count
    from miue.core.run import Run
    from miue.data.picture import check_frames
    from miue.workflows.forecast import planned
    from miue.workflows.job import Job, check_format
    from miue.workflows.protect import carry_out

    check_format(format)
    check_frames(frames)
    run = Run(seed, device, quiet=quiet or json, memory=byte_count(memory) if memory else None)
    job = Job(
        source=source,
        out=out,
        method=attack,
        budget=budget,
        canvas=canvas,
        seed=seed,
        split=split,
        format=format,  # type: ignore[arg-type]
        processes=processes,
        overwrite=overwrite,
        download=download,
        max_pixels=max_pixels,
        frames=frames,  # type: ignore[arg-type]
        drop_columns=tuple(name.strip() for name in (drop_columns or "").split(",") if name.strip()),
        rights=miue.Rights(
            value=rights, creator=creator, copyright=copyright, url=rights_url, text=rights_text,
            contact=rights_contact, path=rights_path, no_search=rights_no_search,
        ),
        trace=tracing.settings(trace, trace_only, trace_strength, trace_keys, beacon, trace_unmeasured, attack),
    )  # fmt: skip
    place = started()
    leads = place is None or place.rank == 0
    if dry_run:
        if leads:
            show.plan(planned(job.shared_by(place.world if place else 1), run), json)
        return
    if job.trace and job.trace.named:
        if leads:
            tracing.committed(job)
        return
    record = carry_out(job, run)
    if leads:
        show.record(record, telling.protected(job, record, quiet), json)
    if record.unprotected:
        raise typer.Exit(FAILED_INPUTS)


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
    from miue.workflows.add import carry_out
    from miue.workflows.addition import examined
    from miue.workflows.forecast import planned_addition

    run = Run(device_name=device, quiet=quiet or json, memory=byte_count(memory) if memory else None)
    addition = examined(out, new, split, download)
    if dry_run:
        show.plan(planned_addition(addition, run), json)
        return
    record = carry_out(addition, run)
    show.record(record, telling.added(addition, record), json)
    if set(addition.new.source.summary()) - {"ok"}:
        raise typer.Exit(FAILED_INPUTS)


rights = typer.Typer(no_args_is_help=True, help="What the files say that you reserve: write it, sign it, read it back.")


@rights.command()
def write(
    out: Out,
    value: RightsValue,
    creator: NewCreator = None,
    copyright: NewCopyright = None,
    rights_url: NewRightsUrl = None,
    rights_text: NewRightsText = None,
    rights_contact: NewRightsContact = None,
    rights_path: NewRightsPath = None,
    rights_no_search: NewRightsNoSearch = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write other rights into every file of OUT, and OUT.rights. Pixels stay; no noise is computed.

    What is not given stays as it is; "" takes a text out. Signatures of `sign` are taken out: they were for other
    bytes. Sign again afterwards. Stopped or killed? The same command goes on and ends in the same files.
    """
    import miue
    from miue.cli import show, telling
    from miue.core.run import Run
    from miue.workflows.rights import changed_rights

    texts = {
        "creator": creator, "copyright": copyright, "url": rights_url, "text": rights_text, "contact": rights_contact,
        "path": rights_path, "no_search": rights_no_search,
    }  # fmt: skip
    given = {name: text for name, text in texts.items() if text is not None}
    reserved = changed_rights(out, value, given)
    record = miue.write_rights(out, reserved, Run(quiet=quiet or json))
    show.record(record, telling.rewritten(out, record, [name for name in reserved.texts() if name not in given]), json)


@rights.command()
def sign(
    out: Out,
    cert: Annotated[Path, typer.Option(help="Your certificate with its chain (PEM), your own first.")],
    key: Annotated[Path, typer.Option(help="Its private key (PEM, not encrypted).")],
    timestamp: Annotated[
        str, typer.Option(metavar="URL", help="Ask this authority for a time stamp (RFC 3161) for every file.")
    ] = "",
    legacy: Annotated[bool, typer.Option("--legacy", help="Say it in the words of C2PA 1.x, too.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Sign every file of OUT with content credentials (C2PA) that say what it reserves. Needs miue[c2pa].

    Pixels stay. No thumbnail and no trace of the original goes in, and without --timestamp there is no network.
    Stopped or killed? The same command goes on. Signed with another certificate? The signatures are replaced.
    """
    import miue
    from miue.cli import show, telling
    from miue.core.run import Run

    signing = miue.sign_rights(out, cert, key, timestamp=timestamp, legacy=legacy, run=Run(quiet=quiet or json))
    show.record(signing, telling.signed(out, signing), json)


@rights.command(name="show")
def show_rights(
    path: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or a parquet table, of anybody.")],
    json: Json = False,
) -> None:
    """Say what each file reserves, by its XMP and by its content credentials (C2PA, with miue[c2pa]).

    Exit code 1 if some files cannot be read.
    """
    import miue
    from miue.cli import show, telling

    reserved = telling.Reserved(rights=miue.read_rights(path), credentials=miue.read_credentials(path))
    show.record(reserved, telling.reserved(reserved), json)
    if any(statement.broken for statement in reserved.rights.values()):
        raise typer.Exit(FAILED_INPUTS)


@rights.command()
def files(out: Out) -> None:
    """Write OUT.rights, the files for your web server, once more."""
    import miue
    from miue.cli import show, telling
    from miue.workflows.record import RunRecord

    written = miue.write_server_files(out) is not None
    show.record(record := RunRecord.of(out), telling.for_server(out, record, written), False)


VERBS = (add,)
