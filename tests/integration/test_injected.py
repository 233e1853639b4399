"""Numerics and memory that fail while a run goes: survived with a warning, or stopped with one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from program import TINY, call, load

from spectrain.lightning import PDEDataModule, WideNetworkModule
from spectrain.pde import Residuals
from spectrain.preconditioners import Landmarks, batch_side
from spectrain.spectrum import Spectrum

RUN = (*TINY, "trainer.max_steps=12", "trainer.val_check_interval=4", "spectrum.every_n_steps=5", "paths.run_dir=r")
EQUATION = (
    "experiment=pinn_poisson2d", "data.points=60", "data.boundary_points=20", "data.resolution=9",
    "optimizer=adam", "preconditioner=sample",
)  # fmt: skip
WAYS: dict[str, tuple[str, ...]] = {
    "sample": (),
    "each": ("preconditioner.outputs=each",),
    "parameter": ("preconditioner=parameter", "optimizer=sgd"),
    "equation": EQUATION,
}
FAILURES: dict[str, Exception] = {
    "eigh": torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge"),
    "gpu memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "memory": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    "python memory": MemoryError(),
}


def words_of(way: str) -> list[str]:
    kept = [w for w in RUN if not (way == "equation" and w.startswith("data."))]
    return [*kept, *WAYS[way]]


def inject(patch: pytest.MonkeyPatch, way: str, instead: Callable[[Callable[..., Any]], Any], good: int) -> None:
    """In the place of every refresh's spectrum but the first `good`."""
    owner, name = (Residuals, "linearize") if way == "equation" else (Landmarks, "spectrum")
    working, calls = getattr(owner, name), []

    def fn(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        call = lambda: working(*args, **kwargs)  # noqa: E731
        return call() if len(calls) <= good else instead(call)

    patch.setattr(owner, name, fn)


@pytest.mark.parametrize("failure", [*FAILURES])
@pytest.mark.parametrize("way", [*WAYS])
def test_a_refresh_that_fails_is_survived(monkeypatch: pytest.MonkeyPatch, way: str, failure: str) -> None:
    def fails(_: Any) -> None:
        raise FAILURES[failure]

    with monkeypatch.context() as patch:
        inject(patch, way, fails, good=2)  # of an equation, the first is that of the history
        outcome = call(*words_of(way))
    assert outcome.code == 0, outcome.err
    assert "failed, the last good spectrum stays" in outcome.err
    summary = json.loads(Path("r/summary.json").read_text())
    assert summary["steps"] == 12 and summary["loss"] == summary["loss"]


@pytest.mark.parametrize("way", ["sample", "equation"])
def test_a_first_refresh_that_fails_stops_the_run(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    def fails(_: Any) -> None:
        raise FAILURES["eigh"]

    inject(monkeypatch, way, fails, good=0)
    error = call(*words_of(way)).error
    assert "step 0 failed, and there is none to go on with" in error


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_kernel_that_is_not_finite(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    working, calls = Spectrum.from_kernel, []

    def from_kernel(K: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return working(K if len(calls) == 1 else torch.full_like(K, value), *args, **kwargs)

    monkeypatch.setattr(Spectrum, "from_kernel", from_kernel)
    outcome = call(*words_of("equation"))
    assert outcome.code in (0, 2)
    assert "Traceback" not in outcome.err and "step 0 failed" in outcome.err


def test_a_batch_kernel_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise FAILURES["gpu memory"]

    monkeypatch.setattr(batch_side, "batch_kernel", fails)
    outcome = call(*RUN, "preconditioner=batch")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("r/summary.json").read_text())["skipped_steps"] == 12


@pytest.mark.parametrize("failure", ["gpu memory", "memory", "python memory"])
def test_no_memory_in_a_step_is_one_sentence(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    working, calls = WideNetworkModule.batch_loss, []

    def batch_loss(self: WideNetworkModule, batch: Any) -> Any:
        calls.append(1)
        if len(calls) > 6:
            raise FAILURES[failure]
        return working(self, batch)

    monkeypatch.setattr(WideNetworkModule, "batch_loss", batch_loss)
    error = call(*RUN).error
    assert "not enough memory" in error and "data.batch_size" in error
    assert load(Path("r/checkpoints/last.ckpt"))["global_step"] == 4


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    working, calls = WideNetworkModule.batch_loss, []

    def batch_loss(self: WideNetworkModule, batch: Any) -> Any:
        calls.append(1)
        return working(self, batch) * (float(value) if len(calls) > 6 else 1.0)

    monkeypatch.setattr(WideNetworkModule, "batch_loss", batch_loss)
    error = call(*RUN).error
    assert f"The loss is {value} at step 6" in error and "r/checkpoints/last.ckpt" in error
    found = load(Path("r/checkpoints/last.ckpt"))
    assert found["global_step"] == 4
    assert all(weight.isfinite().all() for weight in found["state_dict"].values())


def test_points_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """An equation's own sampler, or its source, may give NaN."""
    working = Residuals.__call__
    monkeypatch.setattr(Residuals, "__call__", lambda self, *args: working(self, *args) * float("nan"))
    error = call(*words_of("equation")).error
    assert "The loss is nan at step 0" in error
    assert PDEDataModule is not None
