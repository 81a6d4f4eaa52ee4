"""The reservation of an owner, as XMP in every file: the IPTC/PLUS property `plus:DataMining` and the texts beside it.

Sources: IPTC Photo Metadata Standard 2023.1, PLUS LDF 2.0.1, ISO 16684-1 (XMP).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from xml.etree import ElementTree

from miue.core.errors import UserError

PLUS, RIGHTS = "http://ns.useplus.org/ldf/xmp/1.0/", "http://ns.adobe.com/xap/1.0/rights/"
DC = "http://purl.org/dc/elements/1.1/"
RDF, META = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "adobe:ns:meta/"
VOCABULARY = "http://ns.useplus.org/ldf/vocab/"
VALUES: Mapping[str, str] = MappingProxyType(
    {
        "none": "",
        "allowed": "DMI-ALLOWED",
        "no-generative": "DMI-PROHIBITED-GENAIMLTRAINING",
        "no-training": "DMI-PROHIBITED-AIMLTRAINING",
        "search-only": "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
        "constraint": "DMI-PROHIBITED-SEECONSTRAINT",
        "no-mining": "DMI-PROHIBITED",
    }
)
"""The reservations that there are, the mildest first, each with its key in the vocabulary."""
TOLD = (
    "A reservation is a statement, not a lock. Today the picture's own HTTP header (`noai`) and robots.txt are the ones"
    " that some collectors read; embedded metadata are read by few and removed by many sites. Keep evidence that it "
    "was there (the manifest has a hash of every file). This is not legal advice."
)
GENERATIVE = (
    "no-generative permits the training of classifiers, against which this tool works; no-training reserves that, too"
)
LONGEST = 8000  # characters of all texts together
_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, kw_only=True)
class Rights:
    """The reservation of an owner, one of VALUES, and the texts beside it.

    creator, copyright: instead of those in the EXIF of a picture. url: a page about the rights. text: terms in words.
    contact: a mailto: address for permissions. path: place of the pictures on the server. no_search: with "no-mining",
    keep search engines out, too.
    """

    value: str = "none"
    creator: str = ""
    copyright: str = ""
    url: str = ""
    text: str = ""
    contact: str = ""
    path: str = "/"
    no_search: bool = False

    def __post_init__(self) -> None:
        if self.value not in VALUES:
            raise UserError(f"rights {self.value!r} are unknown; allowed: {', '.join(VALUES)}")
        if self.value == "none" and (given := self.texts()):
            raise UserError(f"{given[0].replace('_', '-')} says nothing without rights; add --rights, as no-training")
        if self.value == "constraint" and not self.text:
            raise UserError("rights constraint: say which one, with --rights-text")
        if self.url and not host(self.url):
            raise UserError(f"{self.url!r} is no web address; it begins with https:// and a host")
        if self.contact and not re.fullmatch(r"mailto:[^@\s<>\"]+@[^@\s<>\"]+", self.contact):
            raise UserError(f"{self.contact!r} is no contact; write mailto:NAME@HOST")
        if self.contact and not self.url:
            raise UserError("a contact is written into a policy, whose address is on your host: add --rights-url")
        if not re.fullmatch(r"/(?:[^\s\"'<>{}\\;#]*/)?", self.path):
            raise UserError(f"{self.path!r} is no path on a server; it begins and ends with /, without spaces")
        if self.no_search and self.value != "no-mining":
            raise UserError("no-search keeps pictures out of search engines; it goes with rights no-mining alone")
        if sum(len(text) for text in (self.creator, self.copyright, self.url, self.text)) > LONGEST:
            raise UserError(f"texts of rights have more than {LONGEST} characters together; shorten them")

    def changed(self, value: str, given: Mapping[str, str | bool]) -> Rights:
        """Another reservation with the texts of this one, where none are given. `none` has no texts."""
        texts = {f.name: getattr(self, f.name) for f in fields(self)} if value != "none" else {}
        if value != "no-mining":
            texts.pop("no_search", None)
        return Rights(**{**texts, **given, "value": value})

    def texts(self) -> list[str]:
        """The names of the texts that are set."""
        return [f.name for f in fields(self) if f.name != "value" and getattr(self, f.name) != f.default]

    @property
    def options(self) -> dict[str, str | bool]:
        """The options of the command line that give it, without dashes before them; none for `none`."""
        prefixes = {"creator": "", "copyright": ""}
        texts = {prefixes.get(name, "rights-") + name.replace("_", "-"): getattr(self, name) for name in self.texts()}
        return ({} if self.value == "none" else {"rights": self.value}) | texts

    @property
    def embedded(self) -> tuple[str, ...]:
        """The values that decide the bytes in the pictures."""
        return self.value, self.creator, self.copyright, self.url, self.text

    def key(self, reserved: str) -> str:
        """The key that a picture gets: ours, or a stricter one of its source. reserved: the key of the source."""
        order = list(VALUES.values())
        own, theirs = VALUES[self.value], _known(reserved)
        if theirs in ("", "DMI-ALLOWED") and not own:
            return ""
        return max(own, theirs, key=order.index)

    def packet(self, reserved: str, artist: str = "", copyright: str = "") -> bytes | None:
        """The XMP packet of a picture; None if there is nothing to say. reserved: the key of its source.

        The same arguments give the same bytes: no time, no version, no identifier.
        """
        if not (key := self.key(reserved)):
            return None
        for prefix, space in (("x", META), ("rdf", RDF), ("plus", PLUS), ("xmpRights", RIGHTS), ("dc", DC)):
            ElementTree.register_namespace(prefix, space)
        root = ElementTree.Element(f"{{{META}}}xmpmeta")
        rdf = ElementTree.SubElement(root, f"{{{RDF}}}RDF")
        about = ElementTree.SubElement(rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
        about.set(f"{{{PLUS}}}DataMining", VOCABULARY + key)
        about.set(f"{{{RIGHTS}}}Marked", "True")
        if self.url:
            about.set(f"{{{RIGHTS}}}WebStatement", clean(self.url))
        _text(about, f"{{{RIGHTS}}}UsageTerms", "Alt", self.text)
        if key == VALUES["constraint"]:
            _text(about, f"{{{PLUS}}}OtherConstraints", "Alt", self.text)
        _text(about, f"{{{DC}}}rights", "Alt", self.copyright or copyright)
        _text(about, f"{{{DC}}}creator", "Seq", self.creator or artist)
        begin = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        text = f'{begin}{ElementTree.tostring(root, encoding="unicode")}<?xpacket end="r"?>'
        return text.encode()


def _text(about: ElementTree.Element, name: str, kind: str, text: str) -> None:
    """Add a property with one text, as a list or as alternatives by language; nothing if it is empty."""
    if text := clean(text):
        many = ElementTree.SubElement(ElementTree.SubElement(about, name), f"{{{RDF}}}{kind}")
        language = {"{http://www.w3.org/XML/1998/namespace}lang": "x-default"} if kind == "Alt" else {}
        ElementTree.SubElement(many, f"{{{RDF}}}li", language).text = text


def clean(text: str) -> str:
    """A text without the characters that XML does not allow."""
    return _CONTROL.sub("", text).strip()


def host(url: str) -> str:
    """Scheme and host of a web address; empty if it is none."""
    match = re.match(r"https?://[^/\s\"'<>?#]+", url)
    return match[0] if match and not re.search(r"[\s\"'<>]", url) else ""


def _known(key: str) -> str:
    """A key in VALUES that is at least as strict: constraints that are not copied count as the strictest."""
    if key in VALUES.values() and key != VALUES["constraint"]:
        return key
    return VALUES["no-mining"] if key.startswith("DMI-PROHIBITED") else ""


@dataclass(frozen=True)
class Reservation:
    """The reservation in an XMP packet. key: empty if there is none. canonical: whether it is the full URI."""

    key: str = ""
    canonical: bool = True
    readable: bool = True
    creator: str = ""
    copyright: str = ""
    broken: str = ""
    """The reason why the file cannot be read; empty if it can."""


NOTHING = Reservation()


def reservation(xmp: bytes | None) -> Reservation:
    """The reservation in a packet of somebody: by the prefix that its namespace has there. Entities stay unresolved."""
    if not xmp:
        return NOTHING
    text = xmp.decode("utf-8", "replace")
    if "<!ENTITY" in text or "<!DOCTYPE" in text:
        return Reservation(readable=False)
    key, canonical = _mining(text)
    return Reservation(key, canonical, True, *_names(text))


def _names(text: str) -> tuple[str, str]:
    """Creators and copyright (in the first language) of a packet without entities; empty if it is no XML."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return "", ""

    def items(name: str) -> list[str]:
        texts = [item.text for item in root.findall(f".//{{{DC}}}{name}//{{{RDF}}}li")]
        return [clean(" ".join(text.split())) for text in texts if text]

    return ", ".join(items("creator")), next(iter(items("rights")), "")


def _mining(text: str) -> tuple[str, bool]:
    """The key in a packet, and whether it is written as a full URI."""
    for prefix in re.findall(rf"xmlns:([\w.-]+)\s*=\s*[\"']{re.escape(PLUS)}[\"']", text):
        name = rf"{re.escape(prefix)}:DataMining"
        forms = (rf"\s{name}\s*=\s*[\"']([^\"'<>]*)[\"']", rf"<{name}[^<>]*resource\s*=\s*[\"']([^\"'<>]*)[\"']",
                 rf"<{name}[^<>]*>([^<>]*)</")  # fmt: skip
        for form in forms:
            if (match := re.search(form, text)) and (value := match[1].strip()):
                key = value.removeprefix(VOCABULARY)
                if re.fullmatch(r"DMI-[A-Z-]{1,60}", key):
                    return "" if key == "DMI-UNSPECIFIED" else key, value != key
    return "", True
