"""INT8 end to end on every reference network: compress, verify bit for bit, compare with float. Random weights.

    python bench/int8.py [NAME ...]        with names, only their rows are measured anew

8 random inputs calibrate and judge, so `sqnr_db` says that nothing is broken, not how good a trained network would be.
`exact_codes` were compared with the reference interpreter, node by node; a difference would be in `differing`.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import rows as result_rows

from netsuke import models
from netsuke.data import Dataset
from netsuke.pipeline import compress

SAMPLES = 8


def judge(name: str) -> dict[str, Any]:
    """One row."""
    item = models.entry(name)
    rng = np.random.default_rng(0)
    shape = (SAMPLES, *item.shape[1:])
    x = rng.integers(0, 8000, shape) if item.dtype == "i64" else rng.standard_normal(shape, dtype=np.float32)
    small = compress(f"models:{name}", calib=Dataset.from_arrays(x), effort="fast", threads=1, measure=False)
    counts = small.layers.counts()
    found, exact = small.check, small.exactness
    assert found is not None
    assert exact is not None
    return {
        "network": name,
        "bytes_ratio": round(small.bytes_before / small.bytes_after, 2),
        "packed_layers": counts["packed"],
        "float_layers": counts["float"] + counts["fallback"],
        "sqnr_db": None if found.sqnr_db is None else round(found.sqnr_db, 1),
        "exact_samples": exact.samples,
        "exact_codes": exact.codes,
        "differing": len(exact.differing),
        "batches_equal": all(row["ok"] for row in found.batch_sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *models.MODELS], metavar="NAME", help="default: all of them")
    for name in parser.parse_args().names or sorted(models.MODELS):
        try:
            row = judge(name)
        except Exception as error:
            row = {"network": name, "error": f"{type(error).__name__}: {str(error)[:300]}"}
        print(row, flush=True)
        path = result_rows.write("int8", "python bench/int8.py", [row], keys=("network",))
    print(path)


if __name__ == "__main__":
    main()
