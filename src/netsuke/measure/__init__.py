"""Measuring: how fast, how much memory, on which machine, compared with whom.

Belongs here: the interleaved benchmark, one small file per competitor (engines/), statistics of timings, limits of this
machine, environment capture, comparison of two result files, the doctor; how near generated samples are to real ones
(samples). Does not: accuracy (verify), pictures (report).

Contract: a competitor is one file in engines/ that ends with `ENGINE = Engine(...)` (engines/base.py). It may be
missing or fail: that is a row with the reason, never an exception. Latency is the wall time of one call with inputs and
outputs in the caller's memory, batch as stated, everything loaded; nothing else is inside the timed region. Throughput
is batch divided by the median latency. To add a competitor: add its file and its name to `engines.NAMES`.
"""

from netsuke.measure.bench import bench
from netsuke.measure.doctor import doctor

__all__ = ["bench", "doctor"]
