"""Stringing rooms together: a trained network in, a compressed program and the truth about it out.

Belongs here: `plan`, `compress`, resuming an interrupted run, `inspect`, `explain`, and sweeps over whole families of
networks (`bibench`, `scaling`). Does not: methods, passes, kernels, metrics, timing; this room only calls them in
order.

Contract: everything that can be wrong is found before slow work starts; what was decided stands in the plan, what came
out stands in `Small`; same model, plan, data and seed give the same file, byte for byte. A run that is interrupted
leaves its best result so far and can be resumed.
To add a stage: a function here, called from `compress`, its result a field of `Small`, its key in docs/json.md.
"""

from netsuke.pipeline.compress import compress
from netsuke.pipeline.explain import explain
from netsuke.pipeline.inspect import inspect
from netsuke.pipeline.plan import plan
from netsuke.pipeline.small import Small
from netsuke.pipeline.train import TrainResult, train

__all__ = ["Small", "TrainResult", "compress", "explain", "inspect", "plan", "train"]
