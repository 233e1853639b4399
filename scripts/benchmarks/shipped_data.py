"""Real data that ship with scikit-learn and scikit-image, and two computed signals: (name, x [n, d], y [n, C])."""

from collections.abc import Iterator

import numpy as np
import torch
from skimage import data as photographs
from skimage.transform import resize
from sklearn import datasets
from torch import Tensor

Data = tuple[str, Tensor, Tensor]


def tables() -> Iterator[Data]:
    for name, load, classes in (
        ("diabetes", datasets.load_diabetes, False),
        ("digits (800)", datasets.load_digits, True),
        ("breast cancer", datasets.load_breast_cancer, True),
        ("wine", datasets.load_wine, True),
    ):
        loaded = load()
        x, y = loaded.data[:800], loaded.target[:800]
        x = (x - x.mean(0)) / x.std(0).clip(1e-9) if "digits" not in name else x / 8 - 1
        y = np.eye(int(y.max()) + 1)[y] if classes else ((y - y.mean()) / y.std())[:, None]
        yield name, torch.from_numpy(x), torch.from_numpy(y)


def images() -> Iterator[Data]:
    rng = np.random.default_rng(5)
    axis = torch.linspace(-1, 1, 32, dtype=torch.float64)
    for name in ("camera", "astronaut", "coffee"):
        image = getattr(photographs, name)() / 255
        image = resize(image if image.ndim == 2 else image.mean(-1), (32, 32), anti_aliasing=True)
        for noise in (0.0, 0.01, 0.05, 0.1):
            noisy = image + noise * rng.normal(size=image.shape)
            yield (
                f"{name}, noise {noise}",
                torch.cartesian_prod(axis, axis),
                torch.from_numpy(2 * noisy - 1).reshape(-1, 1),
            )


def signals() -> Iterator[Data]:
    rng = np.random.default_rng(6)
    t = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    for name, y in (
        ("chirp", torch.sin(2 * torch.pi * (2 * t + 4 * t**2))),
        ("steps", torch.sign(torch.sin(9 * t)) + 0.5 * torch.sign(torch.sin(4 * t + 1))),
    ):
        for noise in (0.0, 0.1):
            yield f"{name}, noise {noise}", t, y + noise * torch.from_numpy(rng.normal(size=y.shape))
