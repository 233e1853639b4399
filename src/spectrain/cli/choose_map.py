"""The map that the data call for: what ``spectrain-suggest`` prints, and what ``spectral_map=auto`` trains with."""

import contextlib
import dataclasses
import io
import warnings
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional

from spectrain.cli import build
from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import empirical_ntk
from spectrain.selection import Suggestion, network_pilot, suggest_spectral_map
from spectrain.spectral_maps import SpectralMap, flatten, identity, power

# conf/spectral_map/auto.yaml names it.
AUTO = "spectrain.selection.suggest_spectral_map"
# Ten eigendecompositions and a pilot for every map: a few seconds.
POINTS = 512
# Kernels of as many networks are averaged: one network's own is a noisy sample of it (docs/choosing_g.md).
INITIALISATIONS = 5


def suggestion_for(cfg: DictConfig, data: Any, network: nn.Module) -> tuple[Suggestion, Float[Tensor, "m m"]]:
    """The ranking for a run, and the kernel it comes from, on m training points: the mean of those of `network` and of
    others that are initialised like it.

    The prediction is for preconditioned gradient descent of at most trainer.max_steps steps.

    Raises:
        InputError: fewer than 20 training points, or a network that has no kernel.
    """
    if data.loss is not functional.mse_loss:
        warnings.warn(
            "The map is chosen by the squared error of the targets, and this run has another loss: take it as a hint.",
            SpectrainWarning,
            stacklevel=3,
        )
    chosen = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(0))[:POINTS].sort().values
    parameter = next(network.parameters())
    x, y = data.train_x[chosen].to(parameter.device, parameter.dtype), data.train_y[chosen]
    held = max(1, cfg.spectrum.every_n_steps // 2)  # the longest that a run's first spectra are held
    with torch.random.fork_rng():  # a run with the override typed out starts from the same random numbers
        networks = [network, *(_another(cfg, data, seed).to(x) for seed in range(1, INITIALISATIONS))]
        K = torch.stack([empirical_ntk(net, x).detach() for net in networks]).mean(0)
        maps, pilot = affordable_maps(cfg.spectrum.rank, len(x)), network_pilot(network, x, y, held)
        found = suggest_spectral_map(K, y, steps=cfg.trainer.max_steps, maps=maps, pilot=pilot)
    return found, K


def _another(cfg: DictConfig, data: Any, seed: int) -> nn.Module:
    """The network of ``model=`` with other initial weights. What its building says has been said."""
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        return build.build_network(cfg, data)


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
    return [f"spectral_map={type(g).__name__}", *(f"spectral_map.{name}={v}" for name, v in _settings(g).items())]


def choose_map(cfg: DictConfig, data: Any, network: nn.Module) -> None:
    """Put the suggested map in the place of ``spectral_map=auto``, and say in one line which, why and how to repeat it.

    Checkpoints and config.yaml then hold the map itself: a resumed run does not choose again.

    Raises:
        InputError: as `suggestion_for`, or for a preconditioner that cannot use the maps that are suggested.
    """
    if not is_auto(cfg):
        return
    if not build.is_on(cfg, "preconditioner"):
        warnings.warn("spectral_map=auto has no effect with preconditioner=none.", SpectrainWarning, stacklevel=2)
        return
    if "spectrain.BatchPreconditioner" in OmegaConf.to_yaml(cfg.preconditioner):
        raise InputError(
            "spectral_map=auto chooses maps that cut at a number of modes, and preconditioner=batch cannot count them; "
            "give it spectral_map=power or spectral_map=ridge."
        )
    found, _ = suggestion_for(cfg, data, network)
    g, typed = found.spectral_map, " ".join(overrides(found.spectral_map))
    reason = f"predicted error {found.best.predicted_error:.3g} after {found.steps} steps of gradient descent"
    if g != identity():
        reason += f", {found.plain.predicted_error:.3g} after {found.plain.steps} without S"
    print(f"spectral_map=auto: {g!r} ({reason}); the same again: {typed}", flush=True)
    chosen = {"_target_": f"spectrain.spectral_maps.{type(g).__name__}", **_settings(g)}
    OmegaConf.update(cfg, "spectral_map", chosen, merge=False, force_add=True)


def is_auto(cfg: DictConfig) -> bool:
    """Whether the map is still to be chosen."""
    return bool(OmegaConf.select(cfg, "spectral_map._target_") == AUTO)


def _settings(g: SpectralMap) -> dict[str, Any]:
    """A map's own numbers. The maps that are suggested are dataclasses."""
    return {field.name: getattr(g, field.name) for field in dataclasses.fields(g)}  # type: ignore[arg-type]
