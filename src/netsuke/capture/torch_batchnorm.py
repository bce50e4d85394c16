"""Statistics of batch normalizations that the torch exporter folds into convolutions on its own.

The exporter's fused node still names the normalization's module; its weight and bias are the deviation and the mean of
what the node writes. They are kept where `netsuke.capture.batchnorm` keeps those of normalizations it folds itself.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.batchnorm import BN_MEAN, BN_STD
from netsuke.capture.graph import array_of

_RULE, _SCOPES, _CLASSES = (
    "pkg.onnxscript.rewriter.rule_name",
    "pkg.torch.onnx.name_scopes",
    "pkg.torch.onnx.class_hierarchy",
)


def keep_statistics(model: ir.Model, state: Mapping[str, Any]) -> int:
    """Write mean and deviation per channel to every layer that a normalization was folded into; their number."""
    count = 0
    for node in model.graph:
        found = _parameters(node, state)
        weight = array_of(node.inputs[1]) if found is not None and len(node.inputs) > 1 else None
        if found is None or weight is None or len(found[0]) not in weight.shape[:2]:
            continue
        node.metadata_props[BN_MEAN] = json.dumps(found[0].tolist())
        node.metadata_props[BN_STD] = json.dumps(found[1].tolist())
        count += 1
    return count


def _parameters(node: ir.Node, state: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """(beta, |gamma|) of the module folded into the node; None when none was, or it is not an ordinary one."""
    properties = node.metadata_props
    if "FuseBatchNorm" not in properties.get(_RULE, ""):
        return None
    try:
        scopes, classes = (ast.literal_eval(properties.get(key, "[]")) for key in (_SCOPES, _CLASSES))
    except (ValueError, SyntaxError):
        return None
    if len(scopes) < 2 or len(classes) < 2 or "BatchNorm" not in str(classes[-2]):
        return None
    gamma, beta, mean = (state.get(f"{scopes[-2]}.{key}") for key in ("weight", "bias", "running_mean"))
    if mean is None:
        return None
    size = len(mean)
    shift = np.zeros(size) if beta is None else np.asarray(beta.detach().cpu().double().numpy())
    scale = np.ones(size) if gamma is None else np.asarray(gamma.detach().cpu().double().numpy())
    return shift, np.abs(scale)
