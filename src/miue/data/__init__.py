"""Data sets in and out: the only place that opens an image."""

from miue.data.align import align
from miue.data.channel import recoded, through
from miue.data.folder import private_of, readable
from miue.data.manifest import FINAL as MANIFEST
from miue.data.output import check_output, clear_output, refuse_existing
from miue.data.preview import export, preview
from miue.data.quality import measure
from miue.data.read import check_canvas, default_canvas, read, read_like
from miue.data.scan import scan, scan_output
from miue.data.shapes import draw as shapes
from miue.data.source import Entry, Source, some
from miue.data.verify import Finding, verify
from miue.data.write import Written, check_sizes, write
from miue.records import Size

__all__ = [
    "MANIFEST",
    "Entry",
    "Finding",
    "Size",
    "Source",
    "Written",
    "align",
    "check_canvas",
    "check_output",
    "check_sizes",
    "clear_output",
    "default_canvas",
    "export",
    "measure",
    "preview",
    "private_of",
    "read",
    "read_like",
    "readable",
    "recoded",
    "refuse_existing",
    "scan",
    "scan_output",
    "shapes",
    "some",
    "through",
    "verify",
    "write",
]
