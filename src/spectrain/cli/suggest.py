"""``spectrain-suggest``: which spectral map a run should take, predicted before it is run."""

import dataclasses
import sys
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from spectrain import plots
from spectrain.cli import build
from spectrain.cli.allowlist import check_targets
from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import run_guarded
from spectrain.cli.launch import launch
from spectrain.cli.run_folder import choose_run_folder
from spectrain.cli.train import quiet_libraries
from spectrain.cli.validation import validate
from spectrain.kernels import empirical_ntk
from spectrain.selection import Suggestion, suggest_spectral_map
from spectrain.spectral_maps import SpectralMap, flatten, identity, power
from spectrain.spectrum import Spectrum

# What the preconditioner's own spectra are computed on, and a few seconds of eigendecompositions.
POINTS = 1024
# Beyond it, networks of a few thousand units left the prediction (docs/spectra.md).
LARGEST_SPEEDUP = 100.0


def suggest(cfg: DictConfig) -> Suggestion:
    """Print the ranking, the reason and the override to type; draw the spectrum before and after.

    The kernel is that of the untrained network on at most 1,024 training points. The prediction is for preconditioned
    gradient descent with at most trainer.max_steps steps.

    Raises:
        InputError: anything in the configuration or the files it names cannot be used.
    """
    validate(cfg)
    check_targets(cfg, cfg.allow_targets)
    folder = choose_run_folder(cfg, "suggestion")
    pl.seed_everything(cfg.seed, verbose=False)
    data = build.build_data(cfg)
    network = build.build_network(cfg, data)
    chosen = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(0))[:POINTS].sort().values
    x, y = data.train_x[chosen], data.train_y[chosen]
    K = empirical_ntk(network, x.to(next(network.parameters()).dtype)).detach()
    maps = affordable_maps(cfg.spectrum.rank, len(x))
    found = suggest_spectral_map(K, y, steps=cfg.trainer.max_steps, maps=maps, largest_speedup=LARGEST_SPEEDUP)
    print(found)
    print(f"To take it: {' '.join(overrides(found.spectral_map))}")
    optimizer = cfg.optimizer.get("_target_", "").rsplit(".", 1)[-1]
    print(
        f"This is the prediction for gradient descent and the kernel of the untrained network. {optimizer} flattens on "
        "its own account, and a trained network's kernel moves: when in doubt, take the smaller alpha."
    )
    spectrum = Spectrum.from_kernel(K, min(len(x), 4 * cfg.spectrum.rank))
    arrays: dict[str, Any] = {
        "eigenvalues": spectrum.eigenvalues.numpy(),
        "ratio": spectrum.ratio(found.spectral_map).numpy(),
        "resolved": spectrum.resolved,
        "noise_floor": spectrum.noise_floor,
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = plots.save_figure(plots.spectrum_figure(**arrays), folder / "suggestion", arrays)
    print(f"figure: {written[0]}")
    return found


def affordable_maps(rank: int, n: int) -> list[SpectralMap]:
    """identity, and power and flatten at cuts below the number of modes that the run computes."""
    last = min(rank - 1, n // 2)
    ranks = sorted({r for r in (4, 16, 64, 256, 1024) if r < last} | {last})
    return [
        identity(),
        *(g for r in ranks if r >= 1 for g in (power(0.25, r), power(0.5, r), power(0.75, r), flatten(r))),
    ]


def overrides(g: SpectralMap) -> list[str]:
    """spectral_map=power spectral_map.alpha=0.5 spectral_map.rank=16: what the map is on the command line."""
    values = {field.name: getattr(g, field.name) for field in dataclasses.fields(g)}  # type: ignore[arg-type]
    return [f"spectral_map={type(g).__name__}", *(f"spectral_map.{name}={value}" for name, value in values.items())]


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")  # type: ignore[untyped-decorator]
def _job(cfg: DictConfig) -> None:
    quiet_libraries()
    code = run_guarded(lambda: suggest(cfg), debug=bool(cfg.show_traceback))
    if code:
        sys.exit(code)


def main() -> None:
    """Check the command line, then let Hydra run it."""
    launch(_job, "train")


if __name__ == "__main__":
    main()
