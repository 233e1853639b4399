"""How well rows of a table are predicted: those trained on, those that choose when to stop, and those never seen.

Shapes: N rows, C outputs.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from spectrain.metrics.base import FieldMetrics, Quality

Parts = Mapping[str, Int[Tensor, " r"]]  # suffix of the metrics' names ("" for the rows that judge) -> rows


class RowMetrics(FieldMetrics):
    """The measures of `measure`, on each part of the rows: "rmse", "rmse_train", "rmse_test"."""

    def __init__(self, target: Float[Tensor, "N C"], parts: Parts) -> None:
        super().__init__(target)
        self.parts = parts

    def measure(self, output: Float[Tensor, "r C"], target: Float[Tensor, "r C"]) -> dict[str, Tensor]:
        """Return the metrics of some rows."""
        raise NotImplementedError

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of every part."""
        output = self.measured()
        return {
            name + suffix: value
            for suffix, rows in self.parts.items()
            for name, value in self.measure(output[rows], self.target[rows]).items()
        }

    def lines(self, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The quality on every part, and of the rows never seen where validation stopped."""
        q = self.quality
        parts = {"": "validation", "_train": "training", "_test": "test"}
        texts = [f"{q.text(summary[q.name + s])} {word}" for s, word in parts.items() if q.name + s in summary]
        found = [(q.label, ", ".join(texts))]
        if "stopped_test" in summary:
            base = (
                f" ({q.text(summary['baseline_stopped_test'])} without)" if "baseline_stopped_test" in summary else ""
            )
            kernel = f"; kernel regression {q.text(summary['kernel_test'])}" if "kernel_test" in summary else ""
            at = f" at step {summary['stopped_step']}, where validation is best"
            found.append(("test", f"{q.text(summary['stopped_test'])}{base}{at}{kernel}"))
        return found


class RegressionMetrics(RowMetrics):
    """rmse = sqrt(mean (f - y)^2) in the target's own unit, and r2 = 1 - |f - y|^2 / |y - mean y|^2.

    `scale`: of the unit, since target and predictions are standardised.
    """

    quality = Quality("rmse", "RMSE", higher=False, form=".4g")
    directions: ClassVar[Mapping[str, bool]] = {"rmse": False, "r2": True}

    def __init__(self, target: Float[Tensor, "N C"], parts: Parts, scale: float = 1.0) -> None:
        super().__init__(target, parts)
        self.scale = scale

    def measure(self, output: Float[Tensor, "r C"], target: Float[Tensor, "r C"]) -> dict[str, Tensor]:
        """Return rmse and r2."""
        squares = (output - target).square().mean()
        return {"rmse": self.scale * squares.sqrt(), "r2": 1 - squares / (target - target.mean(0)).square().mean()}


class ClassMetrics(RowMetrics):
    """accuracy, the share of rows whose largest output is that of their class, and cross_entropy in nats.

    `target` [N, C]: 1 at the class. With `squared` the outputs are no logits, and mse takes the place of cross_entropy.
    """

    quality = Quality("accuracy", "accuracy", form=".4f")
    directions: ClassVar[Mapping[str, bool]] = {"accuracy": True}

    def __init__(self, target: Float[Tensor, "N C"], parts: Parts, *, squared: bool = False) -> None:
        super().__init__(target, parts)
        self.squared = squared

    def measure(self, output: Float[Tensor, "r C"], target: Float[Tensor, "r C"]) -> dict[str, Tensor]:
        """Return accuracy and the loss."""
        right = (output.argmax(1) == target.argmax(1)).double().mean()
        right = torch.where(output.isfinite().all(), right, torch.nan)  # a class of NaN is no class
        if self.squared:
            return {"accuracy": right, "mse": functional.mse_loss(output, target)}
        return {"accuracy": right, "cross_entropy": functional.cross_entropy(output, target)}
