"""The categories of quantization, each with the component that stands for it, its test, and how a config switches it.

Source: Gholami et al., "A Survey of Quantization Methods for Efficient Neural Network Inference", 2021 (arXiv
2103.13630); sections are the survey's. `config` is what `netsuke.pipeline.compress` takes: a recipe's steps (kind
"compress"), or a method of `netsuke train` (kind "train").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netsuke.core.errors import Problem, UsageError, near

_BASE = "quantize/uniform:weight_bits=4,activation_bits=8"
_TESTS = "tests/methods/quantize"


@dataclass(frozen=True)
class Category:
    """section: of the survey; component: a method or module; config: steps, or one method that trains."""

    section: str
    name: str
    component: str
    test: str
    config: tuple[str, ...]
    kind: str = "compress"

    def recipe(self) -> Any:
        """The config as a recipe."""
        from netsuke.core.recipe import Recipe

        if self.kind != "compress":
            raise UsageError(Problem("this category is trained", self.name, ", ".join(self.config), "netsuke train"))
        return Recipe.make(self.config)


def _uniform(options: str) -> tuple[str, ...]:
    return (f"quantize/uniform:{options}",)


CATEGORIES: tuple[Category, ...] = (
    Category(
        "III-A", "uniform", "quantize/uniform",
        f"{_TESTS}/test_widths.py::test_engine_interpreter_and_emulation_agree_on_narrow_codes",
        (_BASE,),
    ),
    Category(
        "III-F", "non-uniform", "codebook/jlcm",
        "tests/methods/codebook/test_codebook.py"
        "::test_learned_books_beat_kmeans_and_kmeans_beats_the_uniform_grid",
        (_BASE, "codebook/jlcm:iterations=0"),
    ),
    Category(
        "III-B", "symmetric weights, asymmetric activations", "quantize/whitepaper_int8",
        f"{_TESTS}/test_codes.py",
        ("quantize/whitepaper_int8",),
    ),
    Category(
        "III-B", "asymmetric weights", "quantize/weight_only",
        "tests/passes/test_weight_only.py::test_compress_by_recipe",
        ("quantize/weight_only:bits=4,group=32",),
    ),
    Category(
        "III-C", "static range: extremes", "quantize/minmax",
        f"{_TESTS}/test_calibrators.py::test_minmax_is_the_extreme_values_with_zero",
        _uniform("weight_bits=8,calibrator=minmax"),
    ),
    Category(
        "III-C", "static range: percentile", "quantize/percentile",
        f"{_TESTS}/test_calibrators.py::test_percentile_stays_within_what_was_seen_and_grows",
        _uniform("weight_bits=8,calibrator=percentile"),
    ),
    Category(
        "III-C", "static range: squared error", "quantize/mse",
        f"{_TESTS}/test_calibrators.py::test_mse_is_near_the_best_of_the_grid_on_all_data",
        _uniform("weight_bits=8,calibrator=mse"),
    ),
    Category(
        "III-C", "static range: entropy", "quantize/entropy",
        f"{_TESTS}/test_calibrators.py::test_divergence_is_scipys",
        _uniform("weight_bits=8,calibrator=entropy"),
    ),
    Category(
        "III-C", "dynamic range", "netsuke.formats.weight_only:quantize_activations",
        "tests/passes/test_weight_only.py::test_accuracy_level_chooses_how_to_compute",
        ("quantize/weight_only:bits=8,group=32,compute=s8",),
    ),
    Category(
        "III-D", "granularity: layer", "quantize/uniform",
        f"{_TESTS}/test_ptq.py::test_per_tensor_and_mse_weights",
        _uniform("weight_bits=6,granularity=tensor"),
    ),
    Category(
        "III-D", "granularity: channel", "quantize/uniform",
        f"{_TESTS}/test_ptq.py::test_per_tensor_and_mse_weights",
        _uniform("weight_bits=6,granularity=channel"),
    ),
    Category(
        "III-D", "granularity: group", "quantize/weight_only",
        "tests/passes/test_weight_only.py::test_compress_by_recipe",
        ("quantize/weight_only:bits=4,group=32,compute=f32",),
    ),
    Category(
        "III-G", "post-training", "quantize/bias_correction",
        f"{_TESTS}/test_corrections.py",
        (_BASE, "quantize/bias_correction"),
    ),
    Category(
        "III-G", "zero-shot", "quantize/zeroq",
        f"{_TESTS}/test_zeroq.py::test_a_run_without_data_uses_them_and_says_so",
        ("quantize/zeroq:iterations=40", _BASE),
    ),
    Category(
        "III-G", "quantization-aware training", "qat/lsq",
        "tests/methods/qat/test_network.py::test_every_method_serves_what_it_trains",
        ("qat/lsq",), "train",
    ),
    Category(
        "III-H", "stochastic", "integer/shiftquant",
        "tests/nn/test_quantizer.py::test_stochastic_rounding_has_the_right_mean",
        ("integer/shiftquant",), "train",
    ),
    Category(
        "IV-A", "integer-only (dyadic)", "quantize/dyadic",
        "tests/passes/test_dyadic_whole.py::test_adds_and_means_are_integer_multiplications_and_shifts",
        ("quantize/whitepaper_int8", "quantize/dyadic"),
    ),
    Category(
        "IV-B", "mixed precision", "bits/search",
        "tests/methods/bits/test_search.py::test_size_budget_is_met_and_used",
        (_BASE, "bits/search:sensitivity=sqnr,formats=w4a8+w8a8"),
    ),
    Category(
        "IV-C", "hardware-aware", "bits/latency",
        "tests/methods/bits/test_search.py::test_latency_is_measured_and_rows_say_what_to_expect",
        (_BASE, "bits/search:sensitivity=sqnr,formats=w4a8+w8a8"),
    ),
    Category(
        "IV-D", "distillation-assisted", "netsuke.methods.qat:make_loss",
        "tests/methods/qat/test_network.py::test_training_resumes_where_it_stopped",
        ("qat/lsq",), "train",
    ),
    Category(
        "IV-E", "binary", "binarize/reste",
        "tests/methods/binarize/test_served.py::test_frozen_networks_run_at_one_bit",
        ("binarize/reste",), "python",
    ),
    Category(
        "IV-E", "ternary", "quantize/uniform",
        f"{_TESTS}/test_ptq.py::test_fewer_weight_bits_limit_the_codes",
        _uniform("weight_bits=2"),
    ),
    Category(
        "IV-F", "vector", "qat/lr2vq",
        "tests/methods/qat/test_lr2vq.py::test_training_lowers_the_loss_and_the_engine_gives_its_outputs",
        ("qat/lr2vq:length=2,entries=64,inner=2",), "train",
    ),
)  # fmt: skip


def category(name: str) -> Category:
    """The category of that name; UsageError with near names."""
    known = {c.name: c for c in CATEGORIES}
    if name not in known:
        raise UsageError(Problem("no such category", got=name, allowed=near(name, known)))
    return known[name]


def rows() -> list[dict[str, str]]:
    """The table: section, category, component, switch, test."""
    words = {"compress": "recipe", "train": "netsuke train --method", "python": "Python"}
    return [
        {
            "section": c.section,
            "category": c.name,
            "component": c.component,
            "switch": f"{words[c.kind]} {', '.join(c.config)}",
            "test": c.test,
        }
        for c in CATEGORIES
    ]
