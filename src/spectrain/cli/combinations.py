"""Settings that must fit each other, or do nothing beside each other: said before anything is built or written."""

import warnings
from collections.abc import Callable
from typing import Any

from spectrain.errors import InputError, SpectrainWarning

# The value of a key; None where the configuration has no such key, or a class of the user's own gives it its meaning.
Get = Callable[[str], Any]

LBFGS, ESGD = "torch.optim.LBFGS", "spectrain.optim.ESGD"
BATCH, PARAMETER = "spectrain.BatchPreconditioner", "spectrain.ParameterPreconditioner"
GAUSS_NEWTON, SCHEDULE_FREE = "spectrain.optim.GaussNewton", "pytorch_optimizer.ScheduleFreeAdamW"
BUDGET = 0.1  # of conf/spectrum/default.yaml
# They hold the second moment that spectrum.metric=optimizer reads (`optimizer_metric`).
WITH_SECOND_MOMENT = (
    *(f"torch.optim.{name}" for name in ("Adam", "AdamW", "NAdam", "RAdam")),
    *(f"pytorch_optimizer.{name}" for name in ("SOAP", "Prodigy", "ScheduleFreeAdamW")),
)


def check_combinations(get: Get) -> None:
    """Refuse settings that contradict each other, and warn of those without effect.

    Raises:
        InputError: naming the keys, and what to give in their place.
    """
    _check_ranks(get)
    _check_optimizer(get)
    _check_closures(get)
    _check_gauss_newton(get)
    _check_batch_side(get)
    _check_grid(get)
    _check_parameter_side(get)
    _warn_without_effect(get)
    _check_schedule(get)
    _check_readout(get)


def _check_ranks(get: Get) -> None:
    """rank <= subset_size: K on m landmarks has m eigenpairs; a map's rank r cuts at the eigenvalue number r + 1."""
    rank, subset = get("spectrum.rank"), get("spectrum.subset_size")
    if rank is not None and subset is not None and rank > subset:
        raise InputError(
            f"spectrum.rank={rank} is larger than spectrum.subset_size={subset}; it must be at most {subset}, "
            "or the subset must be larger."
        )
    cut, hi = get("spectral_map.rank"), get("spectral_map.hi")
    if rank is not None and cut is not None and cut >= rank:
        raise InputError(
            f"spectral_map.rank={cut} is not below spectrum.rank={rank}; the map cuts at eigenvalue number {cut + 1}, "
            "so it must be smaller, or spectrum.rank larger."
        )
    if rank is not None and hi is not None and hi > rank:
        raise InputError(
            f"spectral_map.hi={hi} is above spectrum.rank={rank}, the number of modes; it must be smaller, or "
            "spectrum.rank larger."
        )


def _check_optimizer(get: Get) -> None:
    """A measured rate is for gradient descent alone, and a metric for those that have one."""
    optimizer = get("optimizer._target_")
    if get("optimizer.lr") == "auto" and optimizer != "torch.optim.SGD":
        raise InputError(
            "optimizer.lr=auto measures the largest stable step of gradient descent, which optimizers that rescale the "
            "gradient do not have; give optimizer.lr a number, or take optimizer=sgd."
        )
    if get("spectrum.metric") == "optimizer" and optimizer not in (None, *WITH_SECOND_MOMENT):
        raise InputError(
            f"spectrum.metric=optimizer is read off the second moments of Adam, SOAP and their kin, and {optimizer} "
            "has none; take spectrum.metric=network, or such an optimizer."
        )


def _is(get: Get, optimizer: str) -> bool:
    """Whether it is this one, from whichever module of its package; nothing is imported before it is allowed."""
    given = str(get("optimizer._target_")).split(".")
    return (given[0], given[-1]) == (optimizer.split(".")[0], optimizer.split(".")[-1])


def _check_closures(get: Get) -> None:
    """L-BFGS and ESGD evaluate the loss several times in a step."""
    name = "lbfgs" if _is(get, LBFGS) else "esgd" if _is(get, ESGD) else None
    if name is None:
        return
    if get("guard") is True and get("preconditioner._target_") is not None:
        raise InputError(
            f"guard=true judges steps by one loss each, and optimizer={name} evaluates several; give guard=false."
        )
    if (get("trainer.accumulate_grad_batches") or 1) > 1:
        raise InputError(
            f"optimizer={name} evaluates the loss several times in a step, and of a batch in parts only the last part "
            "is at hand; give trainer.accumulate_grad_batches=1."
        )
    if name == "esgd":
        _check_differences(get)
    elif get("data.batch_size") is not None:
        _warn(
            f"optimizer=lbfgs with data.batch_size={get('data.batch_size')}: what it learns about the curvature in one "
            "step does not hold for the next batch; it is meant for full batches (data.batch_size=null)."
        )


def _check_gauss_newton(get: Get) -> None:
    """It is S itself, with a line search, on residuals in the network's own precision."""
    if not _is(get, GAUSS_NEWTON):
        return
    if get("preconditioner._target_") is not None:
        raise InputError(
            "optimizer=gauss_newton is itself S with the ridge map at every step; add preconditioner=none, or take "
            "optimizer=soap for S with another map."
        )
    if (get("trainer.accumulate_grad_batches") or 1) > 1:
        raise InputError(
            "optimizer=gauss_newton solves for the residuals of one batch, and trainer.accumulate_grad_batches adds up "
            "gradients of several; leave it at 1 and give a larger data.batch_size."
        )
    if get("trainer.gradient_clip_val") is not None:
        raise InputError(
            "optimizer=gauss_newton has no gradient to clip, and a line search that bounds its steps; leave "
            "trainer.gradient_clip_val=null."
        )
    if str(get("trainer.precision") or "32").partition("-")[0] not in ("32", "64"):
        raise InputError(
            f"trainer.precision={get('trainer.precision')} is too coarse for the Cholesky factors of "
            "optimizer=gauss_newton; give 32-true or 64-true."
        )


def _check_differences(get: Get) -> None:
    """ESGD reads the Hessian off the difference of two nearby gradients."""
    clip, precision = get("trainer.gradient_clip_val"), get("trainer.precision")
    if clip is not None:
        raise InputError(
            f"trainer.gradient_clip_val={clip}: optimizer=esgd takes differences of gradients, which clipping "
            "spoils; leave it out."
        )
    if precision is not None and "16" in str(precision):
        raise InputError(
            f"trainer.precision={precision} rounds away the differences of gradients that optimizer=esgd takes; give "
            "trainer.precision=32-true."
        )


def _check_batch_side(get: Get) -> None:
    """It knows no numbers of modes, and is another S at each evaluation of the loss."""
    if get("preconditioner._target_") != BATCH:
        return
    if get("spectral_map._target_") == "spectrain.selection.suggest_spectral_map":
        raise InputError(
            "spectral_map=auto chooses among maps that count modes, which preconditioner=batch does not know; give a "
            "map, such as spectral_map=power, or take preconditioner=sample."
        )
    several = "the line search of optimizer=lbfgs" if _is(get, LBFGS) else "optimizer=esgd" if _is(get, ESGD) else None
    if several is not None:
        _warn(
            f"preconditioner=batch is another S at each evaluation of the loss, which {several} takes for noise; "
            "preconditioner=sample holds it."
        )


def _check_grid(get: Get) -> None:
    if get("preconditioner._target_") == "spectrain.GridPreconditioner" and get("data.holdout") is True:
        raise InputError(
            "preconditioner=grid needs all pixels of a picture, and data.holdout=true leaves every other one out; take "
            "preconditioner=sample, or data.holdout=false."
        )


def _check_parameter_side(get: Get) -> None:
    """It does harm where docs/optimizers.md says."""
    if get("preconditioner._target_") != PARAMETER:
        return
    if get("optimizer.lr") == "auto":
        reason = "on a narrow network its U grows old within a few steps, and the measured rate is then too large"
    elif get("optimizer.scale_free") is True:
        reason = "under an optimizer that rescales the gradient it was slower than no preconditioner where measured"
    else:
        return
    _warn(f"preconditioner=parameter: {reason} (docs/optimizers.md); preconditioner=sample has neither trouble.")


def _warn_without_effect(get: Get) -> None:
    """Settings of a preconditioner that is not there, or that takes no spectrum."""
    name = {None: "none", BATCH: "batch"}.get(get("preconditioner._target_"))
    if name == "none" and get("guard") is True:
        _warn("guard=true has no effect with preconditioner=none.")
    for key, default in (("spectrum.refresh", "every"), ("spectrum.metric", "network")):
        if name is not None and get(key) not in (None, default):
            _warn(f"{key}={get(key)} has no effect with preconditioner={name}, which needs no spectrum.")
    if get("spectrum.budget") not in (None, BUDGET) and get("spectrum.refresh") != "budget":
        _warn(f"spectrum.budget={get('spectrum.budget')} has no effect without spectrum.refresh=budget.")


def _check_schedule(get: Get) -> None:
    """A decay on top of an optimizer that averages its weights instead, and a rise that does not end."""
    schedule = get("schedule._target_")
    if get("optimizer._target_") == SCHEDULE_FREE and schedule == "spectrain.optim.cosine":
        _warn("optimizer=schedule_free averages its weights in place of a decay; take schedule=constant with it.")
    warmup, steps = get("schedule.warmup_steps"), get("trainer.max_steps")
    if warmup is not None and steps is not None and warmup >= steps:
        _warn(f"schedule.warmup_steps={warmup} with trainer.max_steps={steps}: the rate never reaches optimizer.lr.")


def _check_readout(get: Get) -> None:
    """Solved for, it is another layer than the trained one at evaluations, and needs all digits."""
    if get("readout") != "solved":
        return
    if get("optimizer._target_") == SCHEDULE_FREE:
        raise InputError(
            "readout=solved and optimizer=schedule_free both put other weights into the network where it is evaluated; "
            "take readout=trained, or another optimizer."
        )
    if "16" in str(get("trainer.precision")):
        raise InputError(
            f"trainer.precision={get('trainer.precision')} rounds the solution of readout=solved away; give 32-true or "
            "64-true, or readout=trained."
        )


def _warn(message: str) -> None:
    warnings.warn(message, SpectrainWarning, stacklevel=2)
