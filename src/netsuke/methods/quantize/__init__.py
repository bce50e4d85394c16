"""Post-training quantization of a captured ONNX graph.

Belongs here: where quantizers go, calibrators, weight scales and rounding, corrections of the float network before
and after.
Does not belong here: training, bit search across layers, the compiler, running anything (a `Runner` is handed in).
Contract, by the record's tag:
  calibrator   apply(statistics, config, *, bits) -> (lo, hi); reads the running statistics of one tensor; the
               further tag "histogram" asks for a histogram
  graph        apply(context, config) -> None; edits the float network in `context.model`; runs before placement
  weights      apply(context, config) -> None; runs when `context.placement` and `context.ranges` are known and
               before the quantizers are written; may set `context.scales`, `context.codes`, change biases
               the further tag "learned" says it takes minutes: planning leaves it out
  recipe       apply(plan_defaults, config) -> None; sets defaults of the plan
  source       apply(model, config, seed) -> Dataset; makes calibration inputs where none are given
  weight-only  apply(model, plan=plan) -> model; a recipe of one step with a plan of its own (`weight_only.make_plan`)
  search       a bit search (room `bits`), run while planning
  requant      apply(plan, config) -> None; sets how results are requantized
The result is an ONNX graph with QuantizeLinear/DequantizeLinear and metadata "netsuke.requant" = "float" or "dyadic".
To add: a file with a record of one of these tags. Steps run in the order of the recipe; `ptq` needs no change.

    ptq.make_plan(model, budget=..., recipe=..., calib=..., runner=...) -> Plan
    ptq.quantize(model, plan=..., calib=..., runner=...) -> onnx_ir.Model
"""
