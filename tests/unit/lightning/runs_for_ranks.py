"""Short runs under a Trainer, in one process or under DDP."""

import functools
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from spectrain import (
    AutoPreconditioner,
    BatchPreconditioner,
    ParameterPreconditioner,
    SamplePreconditioner,
    spectral_maps,
)
from spectrain.data import ImageDataModule
from spectrain.lightning import AutoCallback, AutomaticRate, MetricsCSV, RunHistory, SpectrumCallback, WideNetworkModule
from spectrain.metrics import ImageMetrics
from spectrain.models import mlp
from spectrain.optim import cosine

g = spectral_maps.power(0.5)
WAYS: dict[str, Any] = {
    "none": lambda: None,
    "sample": lambda: SamplePreconditioner(g),
    "batch": lambda: BatchPreconditioner(g),
    "batch, landmarks": lambda: BatchPreconditioner(g, layers=None, landmarks=16),
    "parameter": lambda: ParameterPreconditioner(g),
    "auto": lambda: AutoPreconditioner([SamplePreconditioner(g)]),
}
# Batches that no number of ranks divides, and the full batch; 16 steps with four refreshes.
RUNS: dict[str, dict[str, Any]] = {
    "none": {"batch_size": 51},
    "sample": {"batch_size": 51},
    "sample, full batch": {},
    "sample, drift": {"refresh": "drift", "accumulate_grad_batches": 2},
    "sample, budget": {"refresh": "budget"},
    "sample, auto rate": {"lr": "auto"},
    "batch": {"batch_size": 51},
    "batch, landmarks": {"batch_size": 51},
    "parameter": {"batch_size": 51},
    "auto": {"batch_size": 51},
}
CLOCK = "sample, budget"  # decided by the clock: another run decides otherwise


def train(name: str, folder: Path, ranks: int) -> dict[str, Any]:
    """The losses of a run, its last validation, and the weights and basis at its end."""
    settings = dict(RUNS[name])
    lr, batch_size = settings.pop("lr", 0.3), settings.pop("batch_size", None)
    pl.seed_everything(0, verbose=False)
    spectrum = SpectrumCallback(8, 36, 4, refresh=settings.pop("refresh", "every"))
    data = ImageDataModule(size=12, batch_size=batch_size)
    module = WideNetworkModule(
        mlp(2, 1, width=24, depth=2),
        functools.partial(torch.optim.SGD, lr=1.0 if lr == "auto" else lr, momentum=0.9, nesterov=True),
        schedule=functools.partial(cosine, max_steps=16),
        preconditioner=WAYS.get(name, WAYS[name.split(",")[0]])(),
        metrics=ImageMetrics(data.image),
    )
    history, losses = RunHistory(spectrum), Losses()
    rate = [AutomaticRate(spectrum)] if lr == "auto" else []
    trainer = pl.Trainer(
        max_steps=16,
        max_epochs=-1,
        val_check_interval=8,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        accelerator="cpu",
        precision="64-true",
        default_root_dir=folder,
        callbacks=[history, spectrum, *rate, AutoCallback(spectrum), losses],
        logger=MetricsCSV(folder),
        **({"strategy": "ddp", "devices": ranks} if ranks > 1 else {"devices": 1}),
        **settings,
    )
    trainer.fit(module, datamodule=data)
    assert spectrum.spectrum is not None
    return {
        "loss": losses.values,
        "psnr": history.rows[-1]["psnr"],
        "refreshes": spectrum.refreshes,
        "basis": spectrum.spectrum.eigenvectors,
        "weights": [p.detach() for p in module.parameters()],
    }


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))
