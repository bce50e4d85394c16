"""Judging a network before and after compression.

Belongs here: metrics, agreement, layer-by-layer parity with the float network, exactness against the reference
interpreter, behaviour at several batch sizes. Does not: speed (measure), pictures (report).

Contract: a judgement takes what runs (`runners.open_runner`) and data, and returns a plain record with `as_json()`;
labels are optional; values that are not finite are an error, never a number. To add one: a file here, a field in
`check.Check`, its key in docs/json.md.
"""

from netsuke.verify.check import check

__all__ = ["check"]
