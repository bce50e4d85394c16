"""The generated catalogue: one static searchable page and an Atom feed of rows as they begin to work.

`python -m netsuke.papers.catalogue docs/catalogue` writes both; the page works without a network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree as ET

from netsuke.papers.ledger import Row, rows

_ATOM = "http://www.w3.org/2005/Atom"
_ID = "urn:netsuke:papers"


def page(table: Sequence[Row]) -> str:
    """The catalogue as one self-contained HTML page."""
    template = resources.files("netsuke.papers").joinpath("catalogue.html").read_text(encoding="utf-8")
    # "</" would end the script element early; JSON allows the escape.
    data = json.dumps([asdict(row) for row in table], ensure_ascii=False).replace("</", "<\\/")
    return template.replace("/*DATA*/", data)


def feed(table: Sequence[Row]) -> str:
    """Atom (RFC 4287): one entry a row that works or is reported as not reproduced, newest first."""
    ET.register_namespace("", _ATOM)
    done = sorted(
        (r for r in table if r.since and r.status not in ("planned", "partial")),
        key=lambda r: (r.since, r.id),
        reverse=True,
    )
    root = ET.Element(f"{{{_ATOM}}}feed")

    def add(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
        child = ET.SubElement(parent, f"{{{_ATOM}}}{tag}", attributes)
        child.text = text or None
        return child

    add(root, "title", "netsuke: papers as they begin to work")
    add(root, "id", _ID)
    add(root, "updated", (done[0].since if done else "2026-01-01") + "T00:00:00Z")
    add(add(root, "author"), "name", "netsuke")
    add(root, "link", rel="self", href="feed.xml")
    for row in done:
        entry = add(root, "entry")
        add(entry, "title", f"{row.name}: {row.status}")
        add(entry, "id", f"{_ID}:{row.id}")
        add(entry, "updated", row.since + "T00:00:00Z")
        add(entry, "link", href=f"index.html#{row.id}")
        add(entry, "summary", f"{row.claim} Built: {row.implemented}")
        add(entry, "category", term=row.area)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def write_catalogue(folder: Path) -> list[Path]:
    """Write `index.html` and `feed.xml` of the shipped ledger into `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table = rows()
    written = []
    for name, text in (("index.html", page(table)), ("feed.xml", feed(table))):
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


if __name__ == "__main__":
    for path in write_catalogue(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/catalogue")):
        print(path)
