"""Rows that are trained on, rows that judge, and rows that are never seen: what tables and tasks of algebra share.

Shapes: N rows, n training rows, C outputs.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from spectrain import plots
from spectrain.data.field import Columns, FieldDataModule, Figures, stacked
from spectrain.errors import InputError
from spectrain.metrics import ClassMetrics, FieldMetrics, RegressionMetrics
from spectrain.metrics.rows import RowMetrics


class RowsDataModule(FieldDataModule):
    """Classes by cross-entropy or, as one-hot targets, by squared error; or numbers by squared error.

    A subclass calls `set_rows`. The constant that the outputs start at (`target_mean`) is log p for the shares p of the
    classes under cross-entropy, which softmax turns into p.
    """

    def set_rows(
        self,
        x: Float[Tensor, "N d"],
        y: Float[Tensor, "N C"],
        parts: dict[str, Int[Tensor, " r"]],
        *,
        classes: bool,
        loss: str = "mse",
        scale: float = 1.0,
    ) -> None:
        """Take the rows; `parts` by the suffix of their metrics, "_train" and "" among them; `scale`: of the target."""
        self.parts, self.classes, self.scale = parts, classes, scale
        self.logits = loss == "cross_entropy"
        self.set_points(x, y, parts["_train"])
        if self.logits:
            self.loss = functional.cross_entropy
            # A class that no training row has would start at minus infinity.
            self.target_mean = self.target_mean.clamp(min=0.5 / len(self.train_y)).log()

    def metrics(self) -> RowMetrics:
        """Accuracy and the loss, or RMSE and R2, on every part."""
        if self.classes:
            return ClassMetrics(self.values, self.parts, squared=not self.logits)
        return RegressionMetrics(self.values, self.parts, self.scale)

    def residual(self, output: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """p - y under cross-entropy, p = softmax(f)."""
        return super().residual(output.double().softmax(1) if self.logits else output)

    def reference(self) -> float | None:
        """What another method reaches on the test rows, in the runs' own measure."""
        return None

    def headline(self, runs: Mapping[str, Columns]) -> dict[str, Any]:
        """The test rows' measure where the validation rows' is best, and the reference."""
        quality = self.metrics().quality
        found: dict[str, Any] = {}
        for run, prefix in zip(runs.values(), ("", "baseline_"), strict=False):
            if f"{quality.name}_test" in run:
                values = run[quality.name]
                stopped = int(values.argmax() if quality.higher else values.argmin())
                found[f"{prefix}stopped_test"] = float(run[f"{quality.name}_test"][stopped])
                found[f"{prefix}stopped_step"] = int(run["step"][stopped])
        reference = self.reference()
        return found if reference is None else {**found, "kernel_test": reference}

    def figures(self, metrics: FieldMetrics, runs: Mapping[str, Columns]) -> Figures:
        """The measure on every part against steps and time."""
        if not runs:
            return {}
        q = metrics.quality
        named = {"_train": "train", "": "validation", "_test": "test"}
        columns = stacked(runs, ("step", "seconds", *(q.name + suffix for suffix in self.parts)))
        arrays = {named.get(name.removeprefix(q.name), name): values for name, values in columns.items()}
        arrays |= {"label": q.axis, "reference": self.reference()}
        return {q.name: (plots.parts_figure, arrays)}


def check_choice(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not one of those allowed, by an InputError."""
    if value not in allowed:
        raise InputError(f"data.{key}={value!r} is not known; allowed: {', '.join(allowed)}.")


def share(key: str, value: Any) -> float:
    """Return a share of the rows, above 0 and below 1; InputError naming it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1:
        return float(value)
    raise InputError(f"data.{key}={value!r} is not usable: give a share of the rows, above 0 and below 1.")
