"""One of DeepXDE's own examples with Gauss-Newton, by the block of docs/your_own_loop.md; skipped without DeepXDE."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "your_own_loop.md").read_text(encoding="utf-8")
# examples/pinn_forward/diffusion_1d.py of DeepXDE 1.15: its equation, points, network and seedless Adam.
EXAMPLE = """
import deepxde as dde
import numpy as np
import torch

dde.config.set_default_float("float64")
dde.config.set_random_seed(0)
pi = np.pi

def pde(x, y):
    source = torch.exp(-x[:, 1:]) * (torch.sin(pi * x[:, :1]) - pi**2 * torch.sin(pi * x[:, :1]))
    return dde.grad.jacobian(y, x, j=1) - dde.grad.hessian(y, x, j=0) + source

def func(x):
    return np.sin(pi * x[:, :1]) * np.exp(-x[:, 1:])

domain = dde.geometry.GeometryXTime(dde.geometry.Interval(-1, 1), dde.geometry.TimeDomain(0, 1))
ends = dde.icbc.DirichletBC(domain, func, lambda _, on: on)
start = dde.icbc.IC(domain, func, lambda _, on: on)
data = dde.data.TimePDE(domain, pde, [ends, start], num_domain=40, num_boundary=20, num_initial=10, num_test=1000)

def error():
    x = data.test_x
    return dde.metrics.l2_relative_error(func(x), model.predict(x))

net = dde.nn.FNN([2] + [32] * 3 + [1], "tanh", "Glorot uniform")
model = dde.Model(data, net)
model.compile("adam", lr=1e-3)
model.train(iterations=1000)  # more CPU time than 20 steps of Gauss-Newton take
adam = error()
net = dde.nn.FNN([2] + [32] * 3 + [1], "tanh", "Glorot uniform")
model = dde.Model(data, net)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepxde") is None, reason="DeepXDE is not a dependency")
def test_an_example_of_deepxde(tmp_path: Path) -> None:
    block = next(b for b in re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL) if "InDeepXDE" in b)
    code = EXAMPLE + block.replace("iterations=100", "iterations=20") + "\nprint('errors', adam, error())\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "DDE_BACKEND": "pytorch", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    adam, ours = map(float, re.search(r"errors (\S+) (\S+)", done.stdout).groups())  # type: ignore[union-attr]
    assert ours < 0.1 * adam, (ours, adam)
