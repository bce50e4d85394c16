"""Showing results: one self-contained HTML page, the same as JSON with a versioned schema, an ONNX for viewers.

Belongs here: the content of a report (`content`), its page (`page`, `charts`, style.css, page.js), its JSON schema
(schema/), the viewable ONNX (`view`). Does not: any measurement; a report only shows what check, bench and compress
found.

Contract: the page loads nothing from anywhere, reads without JavaScript, and shows exactly what report.json holds; a
number that was not measured is shown as not measured. A change of keys raises the schema version.
To add a section: its keys in `content.build` and in the schema, its part in `page`.
"""

from netsuke.report.content import Report, report

__all__ = ["Report", "report"]
