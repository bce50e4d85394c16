"""Bit search: how many bits each layer gets, under a budget of bytes, bit-operations or milliseconds.

Belongs here: sensitivities (what a format costs in quality), cost models (what it costs else), allocators (which format
each layer gets), and searches that string them together.
Does not belong here: quantizers, calibrators and rounding (`quantize`), running or timing anything (a `Runner` and a
`Profiler` are handed in).
Contract, by the record's tag:
  sensitivity  apply(probe, layers, formats, config) -> {(layer, format): harm}; harm >= 0, additive over layers,
               compared only with harms of the same method
  cost         apply(probe, layers, formats, config) -> {(layer, format): cost}; additive over layers
  allocator    apply(problem, config, deadline=None) -> Solution within every limit; UsageError when nothing fits
  search       apply(context, budget, config, finish, deadline=None) -> None; sets weight_bits and activation_bits of
               the plan's rows, `plan.curve` and notes; `finish` writes a context's network
Layers that read one tensor are one decision (`Problem.groups`): a tensor has one width. A recipe holds at most one
search; `quantize.ptq.make_plan` runs it.
`_proxies` holds symbolic formulas over numbers per layer and their evolution (emq).
To add: a file with a record of one of these tags; `bits/search` finds it by name.
"""
