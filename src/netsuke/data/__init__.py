"""Data sets: streamed, hashed, sampled with a seed.

Belongs here: reading inputs (and labels) from files and built-in names, preprocessing, sampling, overlap checks.
Does not belong here: models, metrics, anything that knows what the data are used for.
Contract: a `Dataset` yields chunks and never loads more than a chunk (plus labels); the same spec and seed give
the same samples and the same sha256; what cannot be read is an error that names file, key, shape and dtype.
To add: a built-in name is one entry in builtin.py; a file kind is one reader in readers.py with `count`, `shape`,
`scan`.

A network with several inputs gets structured arrays, one field per input: `pack`, `fields`.

    load_data("calib.npz"), load_data("images/"), load_data("digits"), load_data("cifar10:test", root="...")
"""

from netsuke.data.dataset import Dataset, overlap
from netsuke.data.load import load_data
from netsuke.data.preprocess import Preprocess
from netsuke.data.samples import fields, pack

__all__ = ["Dataset", "Preprocess", "fields", "load_data", "overlap", "pack"]
