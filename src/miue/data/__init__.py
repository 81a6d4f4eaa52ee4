"""Reading and measuring of data sets: the only place that opens an image."""

from miue.core.progress import readable
from miue.data.channel import check_channel, recoded, through
from miue.data.folder import private_of
from miue.data.quality import Size, measure
from miue.data.read import cached, check_canvas, default_canvas, read, read_like
from miue.data.scan import scan, scan_output
from miue.data.shapes import draw as shapes
from miue.data.source import Entry, Source, some

__all__ = [
    "Entry",
    "Size",
    "Source",
    "cached",
    "check_canvas",
    "check_channel",
    "default_canvas",
    "measure",
    "private_of",
    "read",
    "read_like",
    "readable",
    "recoded",
    "scan",
    "scan_output",
    "shapes",
    "some",
    "through",
]
