"""Arithmetic modulo p: the task on which networks memorise first and generalise much later.

Shapes: p^2 rows, 2 p inputs, C = p classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import one_hot

from spectrain.data.field import Columns, whole_number
from spectrain.data.rows import RowsDataModule, check_choice, share
from spectrain.errors import InputError
from spectrain.metrics import ClassMetrics

CRITERIA = ("cross_entropy", "mse")
LARGEST = 151  # p^2 rows of 2 p inputs: 27 MB
FITTED, GENERALISED = 0.99, 0.95  # accuracies


class ModularDataModule(RowsDataModule):
    """Addition modulo p, for grokking: one-hot pairs (a, b) in {0, 1}^{2 p} -> the class a + b mod p.

    `modulus`: p; the rows are all p^2 pairs. `train_share`: of the pairs, drawn by `seed`; the rest judge.
    `criterion`: "cross_entropy", or "mse" on one-hot targets. Source: Power et al. 2022, arXiv 2201.02177.

    Raises InputError naming data.modulus, data.train_share or data.criterion.
    """

    def __init__(
        self,
        modulus: int = 31,
        train_share: float = 0.5,
        criterion: str = "cross_entropy",
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        p = whole_number("data.modulus", modulus, least=2)
        if p > LARGEST:
            raise InputError(f"data.modulus={p} has {p * p} pairs; give {LARGEST} or less.")
        check_choice("criterion", criterion, CRITERIA)
        pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
        x, y = one_hot(pairs, p).flatten(1).float(), one_hot(pairs.sum(1) % p, p).float()
        n = round(share("train_share", train_share) * len(x))
        if not 0 < n < len(x):
            raise InputError(f"data.train_share={train_share} leaves no pairs on one side; there are {len(x)}.")
        order = torch.from_numpy(np.random.default_rng([self.seed]).permutation(len(x)))
        self.set_rows(x, y, {"_train": order[:n], "": order[n:]}, classes=True, loss=criterion)

    def metrics(self) -> "ModularMetrics":
        """Accuracy and the loss, on the pairs trained on and on the others."""
        return ModularMetrics(self.values, self.parts, squared=not self.logits)

    def headline(self, runs: Mapping[str, Columns]) -> dict[str, Any]:
        """Steps to fit the training pairs, to generalise to the others, and between; None where not reached."""
        found: dict[str, Any] = {}
        for run, prefix in zip(runs.values(), ("", "baseline_"), strict=False):
            fit = _first(run["step"], run["accuracy_train"] >= FITTED)
            general = _first(run["step"], run["accuracy"] >= GENERALISED)
            found[f"{prefix}steps_to_fit"], found[f"{prefix}steps_to_generalise"] = fit, general
            found[f"{prefix}delay"] = None if fit is None or general is None else general - fit
        return found


class ModularMetrics(ClassMetrics):
    """As `ClassMetrics`, with the steps that grokking is about in the lines for a person."""

    def lines(self, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Accuracies, and steps to fit and to generalise."""
        texts = []
        for prefix, word in (("", ""), ("baseline_", "without: ")):
            if f"{prefix}steps_to_fit" in summary:
                fit, general = summary[f"{prefix}steps_to_fit"], summary[f"{prefix}steps_to_generalise"]
                texts.append(f"{word}fitted at step {fit or 'none'}, generalised at step {general or 'none'}")
        return [*super().lines(summary), ("grokking", "; ".join(texts))]


def _first(step: np.ndarray, reached: np.ndarray) -> int | None:
    """The first step at which it is reached."""
    return int(step[reached.argmax()]) if reached.any() else None
