"""bfloat16 rounding against torch, over every kind of f32."""

import numpy as np

from netsuke.formats import bf16_to_f32, f32_to_bf16, round_bf16


def test_equals_torch_on_random_bits_and_edges():
    import torch

    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    halves = (np.arange(0, 2**16, dtype=np.uint32) << 16) | 0x8000  # exactly between two bf16
    edges = np.array([0x7F7FFFFF, 0x7F7F8000, 0x7F800000, 0x80000001, 0x00007FFF, 0x00008001], np.uint32)
    x = np.concatenate([bits, halves, edges]).view(np.float32)
    want = torch.from_numpy(x).to(torch.bfloat16)
    got = f32_to_bf16(x)
    nan = np.isnan(x)
    assert (got[~nan] == want.view(torch.int16).numpy().view(np.uint16)[~nan]).all()
    assert (got[nan] == 0x7FC0).all()
    assert (round_bf16(x)[~nan] == want.float().numpy()[~nan]).all()


def test_all_bf16_round_trip():
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    x = bf16_to_f32(bits)
    back = f32_to_bf16(x)
    assert (back == np.where(np.isnan(x), 0x7FC0, bits)).all()
