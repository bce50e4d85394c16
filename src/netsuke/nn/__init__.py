"""PyTorch functions and layers, written once and used by emulation, training and methods.

Belongs here: the integer arithmetic of docs/numerics.md on torch tensors with straight-through gradients (`integer`);
the quantizer protocol, `quantizer` (QuantSpec, Quantizer) with its grids, ranges, rounding and gradient rules in files
of their own, and quantizers with views (`quantizer_double`), tables of vectors (`quantizer_vectors`) or a format that
can change (`quantizer_formats`); `bfloat16`, layers whose products read bfloat16 operands; `binarizer` and
`binary_layers`, the same for one bit, with `surrogates` of the sign's derivative; layers trained in integers
(`integer_train`, `qtensor`, `l1_norm`), batch normalization fused with what stands behind it (`fused_norm`) and with
the convolutions before it (`conv_norm`), found by `norm_fusion`; attention at one or two bits (`binary_attention`,
`hash_attention`); the sampler of image generators (`diffusion`, which runs on NumPy arrays too). Does not belong here:
whole networks (`models`), methods, anything else that runs without torch.

Contract: integer functions take and give integer-valued float tensors and agree bit for bit with `netsuke.formats`; a
layer has a cost and, where it exists, an exact fold. To add one: a file named after it. Importing this room loads no
torch; its files do.
"""
