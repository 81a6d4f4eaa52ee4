"""Reading and measuring of data sets: the only place that opens an image."""

from miue.core.progress import readable
from miue.data.channel import check_channel, recoded, through
from miue.data.folder import pictures_in, private_of
from miue.data.joined import IN_ALREADY, Earlier, New, new_of, originals_of
from miue.data.quality import Size, measure
from miue.data.read import cached, check_canvas, default_canvas, read, read_like
from miue.data.scan import open_store, scan, scan_output, scan_some
from miue.data.shapes import draw as shapes
from miue.data.source import Entry, Source, pictures_digest, some

__all__ = [
    "IN_ALREADY",
    "Earlier",
    "Entry",
    "New",
    "Size",
    "Source",
    "cached",
    "check_canvas",
    "check_channel",
    "default_canvas",
    "measure",
    "new_of",
    "open_store",
    "originals_of",
    "pictures_digest",
    "pictures_in",
    "private_of",
    "read",
    "read_like",
    "readable",
    "recoded",
    "scan",
    "scan_output",
    "scan_some",
    "shapes",
    "some",
    "through",
]
