"""Output: protected files with their manifest, verified by reading them as any other reader does."""

from miue.data.folder import NOTICE
from miue.publish.align import align
from miue.publish.credentials import Credentials, Signer, sign
from miue.publish.credentials import read as shown_credentials
from miue.publish.known import Known
from miue.publish.manifest import FINAL as MANIFEST
from miue.publish.manifest import PART, Line, Plan, finished, read_lines
from miue.publish.output import NOTICE_TEXT, check_folders, check_output, clear_output, refuse_existing
from miue.publish.preview import export, preview
from miue.publish.returned import Comeback, Look, Returned
from miue.publish.rights import notice as rights_notice
from miue.publish.rights import rewrite, rights_of, server_folder, write_rights
from miue.publish.rights import shown as shown_rights
from miue.publish.shown import Originals, Shown, shown
from miue.publish.verify import Finding, verify
from miue.publish.write import Written, check_sizes, room, write

__all__ = [
    "MANIFEST",
    "NOTICE",
    "NOTICE_TEXT",
    "PART",
    "Comeback",
    "Credentials",
    "Finding",
    "Known",
    "Line",
    "Look",
    "Originals",
    "Plan",
    "Returned",
    "Shown",
    "Signer",
    "Written",
    "align",
    "check_folders",
    "check_output",
    "check_sizes",
    "clear_output",
    "export",
    "finished",
    "preview",
    "read_lines",
    "refuse_existing",
    "rewrite",
    "rights_notice",
    "rights_of",
    "room",
    "server_folder",
    "shown",
    "shown_credentials",
    "shown_rights",
    "sign",
    "verify",
    "write",
    "write_rights",
]
