"""Settings that do not go together, one sentence each; and those without effect."""

from typing import Any

import pytest

from spectrain.cli.combinations import check_combinations
from spectrain.errors import InputError, SpectrainWarning

LBFGS = {"optimizer._target_": "torch.optim.LBFGS"}
ESGD = {"optimizer._target_": "spectrain.optim.ESGD"}
SAMPLE, BATCH, GRID = (
    {"preconditioner._target_": f"spectrain.{name}Preconditioner"} for name in ("Sample", "Batch", "Grid")
)
OPTIMIZER_METRIC = {"spectrum.metric": "optimizer"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"spectrum.rank": 64, "spectral_map.hi": 65}, r"spectral_map.hi=65 is above spectrum.rank=64"),
        (LBFGS | SAMPLE | {"guard": True}, "give guard=false"),
        (BATCH | {"spectral_map._target_": "spectrain.selection.suggest_spectral_map"}, "spectral_map=power"),
        (ESGD | SAMPLE | {"guard": True}, "give guard=false"),
        (LBFGS | {"trainer.accumulate_grad_batches": 2}, "accumulate_grad_batches=1"),
        (ESGD | {"trainer.accumulate_grad_batches": 2}, "accumulate_grad_batches=1"),
        (ESGD | {"trainer.gradient_clip_val": 1.0}, "which clipping spoils"),
        (ESGD | {"trainer.precision": "bf16-mixed"}, "trainer.precision=32-true"),
        (GRID | {"data.holdout": True}, "data.holdout=false"),
        (SAMPLE | OPTIMIZER_METRIC | {"optimizer._target_": "torch.optim.SGD"}, "torch.optim.SGD has none"),
    ],
)
def test_what_contradicts_each_other_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_combinations(settings.get)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"guard": True}, "guard=true has no effect"),
        ({"spectrum.refresh": "drift"}, "spectrum.refresh=drift has no effect with preconditioner=none"),
        (BATCH | OPTIMIZER_METRIC, "spectrum.metric=optimizer has no effect with preconditioner=batch"),
        (LBFGS | SAMPLE | {"data.batch_size": 100}, "full batches"),
        (LBFGS | BATCH, "takes for noise"),
        ({"optimizer._target_": "torch.optim.lbfgs.LBFGS"} | BATCH, "takes for noise"),
        (ESGD | BATCH, "optimizer=esgd takes for noise"),
    ],
)
def test_what_does_nothing_or_harm_warns(settings: dict[str, Any], said: str) -> None:
    with pytest.warns(SpectrainWarning, match=said):
        check_combinations(settings.get)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        LBFGS | SAMPLE,
        LBFGS | {"trainer.accumulate_grad_batches": 1, "trainer.gradient_clip_val": None},
        ESGD | SAMPLE | {"data.batch_size": 100, "trainer.precision": "32-true"},
        SAMPLE | {"guard": True, "spectrum.refresh": "drift"},
        SAMPLE | OPTIMIZER_METRIC | {"optimizer._target_": "pytorch_optimizer.SOAP"},
        {"spectrum.rank": 64, "spectral_map.hi": 64},
    ],
)
def test_what_fits_passes(settings: dict[str, Any]) -> None:
    check_combinations(settings.get)
