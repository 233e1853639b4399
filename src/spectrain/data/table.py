"""A table as a regression or classification problem: columns of numbers -> one column.

Shapes: N rows, m columns, d inputs, C outputs.
"""

import os
import warnings
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn import datasets

from spectrain.data.files import Sheet, expanded, is_number, nearest, read_sheet
from spectrain.data.folders import read_classes
from spectrain.data.rows import RowsDataModule, check_choice, share
from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import infinite_width_ntk
from spectrain.regression import KernelRegression

BUNDLED = "sklearn:"
# Those inside scikit-learn's wheel, which need no download: their kind of target.
SETS = {
    "diabetes": "regression",
    "wine": "classification",
    "breast_cancer": "classification",
    "digits": "classification",
    "iris": "classification",
}
TASKS = ("auto", "regression", "classification")
SCALES = ("columns", "all")
# A target of whole numbers that takes at most so many values is one of classes, unless data.task says otherwise.
MOST_CLASSES = 20
# Rows up to which the kernel's own prediction is computed: seconds.
KERNEL_ROWS = 3000


class TableDataModule(RowsDataModule):
    """A table for a network f: standardised columns -> the standardised target, or the logits of its classes.

    `path`: a CSV (with or without a header), NumPy or torch file, "sklearn:NAME" for one of scikit-learn's own tables,
    or a folder with a sub-folder of pictures for each class, whose pixels are the columns. `target`: name or number
    (from 0; negative from the end) of the target's column. `delimiter`: of the CSV file, None finds it. `task`: "auto"
    takes texts, and whole numbers of at most 20 values, for classes. `validation`, `test`: shares of the rows, drawn by
    `seed`. `standardize`: each of the "columns" by its own mean and deviation on the training rows, or "all" by one,
    for columns of one kind such as pixels.

    Raises InputError naming the key of the data.
    """

    def __init__(
        self,
        path: str | None,
        target: str | int = -1,
        *,
        delimiter: str | None = None,
        task: str = "auto",
        validation: float = 0.2,
        test: float = 0.2,
        standardize: str = "columns",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        check_choice("task", task, TASKS)
        check_choice("standardize", standardize, SCALES)
        x, y, kind = _load(path, target, delimiter, task)
        order = torch.from_numpy(np.random.default_rng([self.seed]).permutation(len(x)))
        held, unseen = round(share("validation", validation) * len(x)), round(share("test", test) * len(x))
        n = len(x) - held - unseen
        if min(n, held, unseen) < 1:
            raise InputError(
                f"data.validation={validation} and data.test={test} leave {n} of {len(x)} rows to train on, {held} to "
                f"validate and {unseen} to test; each needs one or more."
            )
        parts = {"_train": order[:n], "": order[n : n + held], "_test": order[n + held :]}
        axis = 0 if standardize == "columns" else None
        trained = parts["_train"].numpy()
        deviation = x[trained].std(axis, keepdims=True)
        points = (x - x[trained].mean(axis, keepdims=True)) / np.where(deviation > 0, deviation, 1)
        if kind == "classification":
            self.labels, classes = np.unique(y, return_inverse=True)
            values, scale = np.eye(len(self.labels))[classes], 1.0
        else:
            scale = float(y[trained].std()) or 1.0
            values = ((y - y[trained].mean()) / scale)[:, None]
        self.set_rows(
            torch.from_numpy(points).float(),
            torch.from_numpy(values).float(),
            parts,
            classes=kind == "classification",
            loss="cross_entropy" if kind == "classification" else "mse",
            scale=scale,
        )

    @cached_property
    def _reference(self) -> float | None:
        if len(self.points) > KERNEL_ROWS:
            return None
        kernel = partial(infinite_width_ntk, depth=3, bias_variance=0.1)
        x, y = self.points.double(), self.values.double()
        train, test = self.parts["_train"], self.parts["_test"]
        predicted = KernelRegression(kernel, ridge="loo").fit(x[train], y[train]).predict(x[test])
        quality = self.metrics().quality.name
        return float(self.metrics().measure(predicted, y[test])[quality])

    def reference(self) -> float | None:
        """Kernel ridge regression with the tangent kernel of an infinitely wide ReLU network of three layers.

        The ridge has the least leave-one-out error on the training rows; classes are one-hot targets. None above 3,000
        rows.
        """
        return self._reference


def _load(path: Any, target: Any, delimiter: str | None, task: str) -> tuple[Float[np.ndarray, "N d"], np.ndarray, str]:
    """Inputs, targets (numbers, or labels of classes) and the kind of the target."""
    if not isinstance(path, str) or not path:
        raise InputError(
            f"data.path={path!r} is no table: give a CSV, NumPy or torch file, or one of "
            f"{', '.join(BUNDLED + name for name in SETS)}."
        )
    if path.startswith(BUNDLED):
        name = path.removeprefix(BUNDLED)
        if name not in SETS:
            raise InputError(
                f"data.path={path} is not a table shipped with scikit-learn{nearest(name, SETS, BUNDLED)}; there are "
                f"{', '.join(SETS)}."
            )
        _warn_of_target(path, target)
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return np.asarray(x, np.float64), y, SETS[name] if task == "auto" else task
    if os.path.isdir(expanded(path)):
        return *_load_folder(path, target, task), "classification"
    sheet = read_sheet(path, delimiter)
    if len(sheet.names) < 2:
        raise InputError(
            f"data.path={path} has one column; a table needs inputs and a target (is data.delimiter right?)."
        )
    column = _target_column(sheet, target)
    x = sheet.numbers(j for j in range(len(sheet.names)) if j != column)
    y, kind = _target(sheet, column, task)
    if kind == "classification" and len(np.unique(y)) < 2:
        raise InputError(f"data.path={path} has one class only in its column {sheet.names[column]!r}.")
    return x, y, kind


def _load_folder(path: str, target: Any, task: str) -> tuple[Float[np.ndarray, "N d"], np.ndarray]:
    if task == "regression":
        raise InputError(f"data.task=regression: the targets of data.path={path} are the names of its sub-folders.")
    _warn_of_target(path, target)
    return read_classes(path)


def _warn_of_target(path: str, target: Any) -> None:
    if target != -1:
        warnings.warn(
            f"data.target={target} has no effect with data.path={path}, which has a target of its own.",
            SpectrainWarning,
            stacklevel=4,
        )


def _target_column(sheet: Sheet, target: Any) -> int:
    m = len(sheet.names)
    if isinstance(target, int) and not isinstance(target, bool) and -m <= target < m:
        return target % m
    if isinstance(target, str) and target in sheet.names:
        return sheet.names.index(target)
    hint = nearest(str(target), sheet.names)
    raise InputError(
        f"data.target={target!r} is not a column of data.path={sheet.path}{hint}: it has {', '.join(sheet.names)}; a "
        f"number from {-m} to {m - 1} will do as well."
    )


def _target(sheet: Sheet, column: int, task: str) -> tuple[np.ndarray, str]:
    if task != "regression" and not isinstance(sheet.rows, np.ndarray):
        texts = np.array([str(row[column]) for row in sheet.rows])
        numeric = all(is_number(text) for text in texts)
        if not numeric and (task == "classification" or not any(is_number(text) for text in texts)):
            for i, text in enumerate(texts):
                if not text:
                    sheet.refuse(i, column)
            return texts, "classification"
    values = sheet.numbers([column])[:, 0]
    if task == "classification" or (
        task == "auto" and (values == values.round()).all() and len(np.unique(values)) <= MOST_CLASSES
    ):
        return values, "classification"
    return values, "regression"
