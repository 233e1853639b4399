"""Which values a configuration key may have: kinds of values, and one table of keys."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Rule:
    """A test for a value, and the words for it: "it must be {allowed}"."""

    accepts: Callable[[Any], bool]
    allowed: str
    is_float: bool = False


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or OmegaConf.is_list(value)  # ${sized:...} makes plain ones


def _values(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True).values()  # type: ignore[union-attr]  # ??? comes as a text


def choice(*names: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


def optional(rule: Rule) -> Rule:
    """The same, or null."""
    return Rule(lambda value: value is None or rule.accepts(value), f"{rule.allowed}, or null", rule.is_float)


positive_int = Rule(lambda value: _is_int(value) and value > 0, "a whole number of at least 1")
non_negative_int = Rule(lambda value: _is_int(value) and value >= 0, "a whole number of at least 0")
positive_float = Rule(lambda value: _is_number(value) and value > 0, "a finite number above 0", is_float=True)
non_negative_float = Rule(
    lambda value: _is_number(value) and value >= 0, "a finite number of at least 0", is_float=True
)
share = Rule(
    lambda value: _is_number(value) and 0 < value <= 1,
    "a share of the run's time, above 0 and at most 1",
    is_float=True,
)
part = Rule(
    lambda value: _is_number(value) and 0 < value < 1, "a share of the rows, above 0 and below 1", is_float=True
)
hold = Rule(
    lambda value: _is_number(value) and 0 <= value < 1, "a part of the steps, at least 0 and below 1", is_float=True
)
finite_float = Rule(_is_number, "a finite number", is_float=True)
size = Rule(
    lambda value: (
        (_is_int(value) and value > 0)
        or (_is_list(value) and len(value) == 2 and all(_is_int(side) and side > 0 for side in value))
    ),
    "a whole number of at least 1 (the longer side), [rows, columns]",
)
boolean = Rule(lambda value: isinstance(value, bool), "true or false")
rate = Rule(
    lambda value: value == "auto" or positive_float.accepts(value),
    "a finite number above 0, or auto with optimizer=sgd",
    is_float=True,
)
seed = Rule(lambda value: _is_int(value) and 0 <= value < 2**32, "a whole number from 0 to 4294967295")
path = Rule(
    lambda value: isinstance(value, str) and value != "" and "\0" not in value,
    "the path of a file or folder, as a text",
)
text = Rule(lambda value: isinstance(value, str) and value != "", "a text")
condition_weights = Rule(
    lambda value: (
        value is None
        or value == "trace"
        or (OmegaConf.is_dict(value) and all(positive_float.accepts(weight) for weight in _values(value)))
    ),
    "finite numbers above 0 by condition, such as {boundary:10}, or trace",
)
positive_list = Rule(
    lambda value: _is_list(value) and len(value) > 0 and all(_is_number(v) and v > 0 for v in value),
    "a list of finite numbers above 0, such as [0.5, 1, 2]",
)
one_or_more = Rule(
    lambda value: positive_float.accepts(value) or positive_list.accepts(value),
    f"{positive_float.allowed}, or {positive_list.allowed}",
)
batch_list = Rule(
    lambda value: (
        _is_list(value)
        and len(value) > 0
        and all(v in ("own", "all") or positive_int.accepts(v) for v in value)
        and len({str(v) for v in value}) == len(value)  # a size that is there twice would count twice
    ),
    "a list without repeats of own (that of the task), all, or whole numbers of at least 1, such as [own, 1024]",
)
seed_list = Rule(
    lambda value: _is_list(value) and len(value) > 0 and all(seed.accepts(v) for v in value),
    "a list of whole numbers of at least 0, such as [0, 1, 2]",
)
decay = Rule(lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1", is_float=True)
decay_list = Rule(
    lambda value: OmegaConf.is_list(value) and len(value) > 1 and all(_is_number(v) and 0 <= v < 1 for v in value),
    "a list of numbers from 0 to below 1, such as [0.9, 0.999]",
)
text_list = Rule(
    lambda value: _is_list(value) and all(isinstance(item, str) for item in value),
    "a list of texts, such as [mylab.networks]",
)

# In the order in which they are reported: a key stands below those it is computed from.
RULES: dict[str, Rule] = {
    "seed": seed,
    "figures": boolean,
    "guard": boolean,
    "readout": choice("trained", "solved"),
    "resume": boolean,
    "baseline": boolean,
    "show_traceback": boolean,
    "allow_targets": text_list,
    "ckpt_path": optional(path),
    "paths.output_dir": path,
    "paths.run_dir": optional(path),
    "output_dir": optional(path),
    "size": choice("default", "paper"),
    "study.seconds": positive_float,
    "study.warmup": positive_int,
    "study.few": positive_int,
    "study.seeds": seed_list,
    "study.networks": text_list,
    "study.optimizers": text_list,
    "budget": one_or_more,
    "race.better": choice("higher", "lower"),
    "race.target": optional(finite_float),
    "race.common": text_list,
    "race.baselines": text_list,
    "seeds": seed_list,
    "rates": positive_list,
    "race.batch_key": choice("data.batch_size", "data.points"),
    "race.batch_sizes": batch_list,
    "batch_sizes": batch_list,
    "evaluations": positive_int,
    "tasks": optional(text_list),
    "methods": optional(text_list),
    "calibration_steps": positive_int,
    "data.size": optional(size),
    "data.batch_size": optional(positive_int),
    "data.batches": choice("random", "lattice"),
    "data.points": positive_int,
    "data.boundary_points": positive_int,
    "data.resample_every_n_steps": optional(positive_int),
    "data.adaptive": boolean,
    "data.hard": boolean,
    "data.weights": condition_weights,
    "data.resolution": positive_int,
    "data.damping": positive_float,
    "data.grayscale": boolean,
    "data.holdout": boolean,
    "data.noise": non_negative_float,
    "data.downsample": positive_int,
    "data.frames": optional(positive_int),
    "data.samples": optional(positive_int),
    "data.task": choice("auto", "regression", "classification"),
    "data.standardize": choice("columns", "all"),
    "data.validation": part,
    "data.test": part,
    "data.modulus": positive_int,
    "data.train_share": part,
    "data.criterion": choice("cross_entropy", "mse"),
    "data.seed": seed,
    "model.width": positive_int,
    "model.depth": positive_int,
    "model.features": positive_int,
    "model.scale": positive_float,
    "model.omega": positive_float,
    "model.first_bias_scale": positive_float,
    "model.weight_scale": positive_float,
    "model.sigma": positive_float,
    "model.period": positive_float,
    "model.harmonics": positive_int,
    "model.activation": choice("relu", "tanh", "gelu", "sine"),
    "model.parameterization": choice("ntk", "standard"),
    "model.bias_scale": non_negative_float,
    "model.center_output": boolean,
    "model.adaptive_lr": positive_float,
    "trainer.max_steps": positive_int,
    "trainer.num_nodes": positive_int,
    "trainer.val_check_interval": positive_int,
    "trainer.log_every_n_steps": positive_int,
    "trainer.accumulate_grad_batches": positive_int,
    "trainer.timeout_seconds": positive_float,
    "trainer.gradient_clip_val": optional(positive_float),
    "optimizer.lr": rate,
    "optimizer.scale_free": boolean,
    "optimizer.betas": decay_list,
    "optimizer.eps": positive_float,
    "optimizer.weight_decay": non_negative_float,
    "optimizer.momentum": non_negative_float,
    "optimizer.nesterov": boolean,
    "optimizer.mu": positive_float,
    "optimizer.decay": decay,
    "optimizer.every_n_steps": positive_int,
    "optimizer.precondition_frequency": positive_int,
    "optimizer.preconditioning_compute_steps": positive_int,
    "optimizer.start_preconditioning_step": positive_int,
    "optimizer.line_search_fn": optional(choice("strong_wolfe")),
    "optimizer.max_iter": positive_int,
    "optimizer.history_size": positive_int,
    "optimizer.tolerance_grad": non_negative_float,
    "optimizer.tolerance_change": non_negative_float,
    "optimizer.alpha": non_negative_float,
    "preconditioner.dtype": optional(choice("float32", "bfloat16", "float64")),
    "schedule.warmup_steps": non_negative_int,
    "schedule.hold": hold,
    "logger.mode": choice("online", "offline", "disabled"),
    "logger.project": text,
    "logger.entity": optional(text),
    "logger.name": optional(text),
    "logger.group": optional(text),
    "logger.job_type": optional(text),
    "logger.tags": optional(text_list),
    "logger.checkpoints": boolean,
    "spectrum.rank": positive_int,
    "spectrum.subset_size": positive_int,
    "spectrum.every_n_steps": positive_int,
    "spectrum.extension": choice("auto", "interpolate", "nystrom", "exact"),
    "spectrum.landmarks": choice("auto", "grid", "random", "farthest", "leverage"),
    "preconditioner.exponent": non_negative_float,
    "preconditioner.outputs": choice("trace", "each", "full"),
    "spectrum.refresh": choice("every", "drift", "budget"),
    "spectrum.budget": share,
    "spectrum.metric": choice("network", "optimizer"),
    "preconditioner.layers": optional(positive_int),
    "preconditioner.landmarks": optional(positive_int),
    "preconditioner.floor": positive_float,
    "preconditioner.default_alpha": non_negative_float,
    "spectral_map.alpha": non_negative_float,
    "spectral_map.rank": optional(positive_int),
    "spectral_map.mu": positive_float,
    "spectral_map.relative": boolean,
    "spectral_map.t": positive_float,
    "spectral_map.order": finite_float,
    "spectral_map.dimension": positive_int,
    "spectral_map.lo": non_negative_float,  # bandpass counts modes, clip bounds ratios
    "spectral_map.hi": positive_float,
    "spectral_map.leak": positive_float,
}
# What the evaluation program means by a key of the same name.
OF_EVALUATION = {"size": optional(positive_int)}
