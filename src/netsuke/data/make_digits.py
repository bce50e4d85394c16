"""Make digits.npz from scikit-learn's copy of the UCI optical digits (Alpaydin, Kaynak 1998): run once, by hand.

python -m netsuke.data.make_digits
"""

from __future__ import annotations

from pathlib import Path

import numpy as np


def main() -> None:
    """Write x uint8 [1797, 8, 8] (values 0 to 16) and y uint8 [1797]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    np.savez_compressed(Path(__file__).with_name("digits.npz"), x=x, y=y)


if __name__ == "__main__":
    main()
