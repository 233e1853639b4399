"""``spectrain-evaluate``: the predictions of a checkpoint, a picture's at any resolution, and their metrics."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from spectrain.cli import build
from spectrain.cli.allowlist import check_targets
from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import run_guarded
from spectrain.cli.launch import launch
from spectrain.cli.physics import is_physics
from spectrain.cli.rules import OF_EVALUATION
from spectrain.cli.run_folder import foreign_version, load_checkpoint
from spectrain.cli.train import quiet_libraries
from spectrain.cli.validation import validate
from spectrain.errors import InputError
from spectrain.lightning.outputs import write_json

CHUNK = 65536


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Write the predictions, what belongs to their kind, and metrics.json; return the metrics.

    A picture may have another size than that of the training; the target is then the photograph resized to it.

    Raises:
        InputError: the checkpoint, the size or the output folder cannot be used.
    """
    if cfg.ckpt_path is None:
        raise InputError("ckpt_path is missing; give a checkpoint, such as ckpt_path=runs/NAME/checkpoints/best.ckpt.")
    checkpoint = load_checkpoint(cfg.ckpt_path)
    run = OmegaConf.create(checkpoint["config"])
    assert isinstance(run, DictConfig)
    validate(cfg, OF_EVALUATION)
    check_targets(run, cfg.allow_targets)
    if is_physics(run):
        raise InputError(
            f"ckpt_path={cfg.ckpt_path} is a run on an equation: its field and errors lie in its folder (field.npz, "
            "field.vtk, summary.json); there is nothing more to evaluate here."
        )
    data = build.build_field(run)
    network = build.build_network(run, data)
    load_network(network, checkpoint, cfg.ckpt_path)

    x, metrics, where = data.evaluation(cfg.size)
    for chunk in predict(network, x):
        metrics.update(chunk)
    result = {name: float(value) for name, value in metrics.compute().items()}
    folder = Path(cfg.output_dir or Path(cfg.ckpt_path).resolve().parent.parent / "evaluation")
    folder.mkdir(parents=True, exist_ok=True)
    data.export(folder, metrics)
    write_json(folder / "metrics.json", result)
    print(f"{metrics.sentence(result)} {where}; written to {folder}")
    return result


def load_network(network: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    """Put the checkpoint's weights into the network."""
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = f"{foreign_version(path)} ({error})"
        raise InputError(f"ckpt_path={path} does not fit the network of its own configuration: {reason}") from error
    network.to(next(iter(weights.values())).dtype).eval()


@torch.no_grad()
def predict(network: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """The network at all points, some at a time."""
    dtype = next(network.parameters()).dtype
    for chunk in x.to(dtype).split(CHUNK):
        yield network(chunk).float()


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="evaluate")  # type: ignore[untyped-decorator]
def _job(cfg: DictConfig) -> None:
    quiet_libraries()
    code = run_guarded(lambda: evaluate(cfg), debug=cfg.show_traceback is True)
    if code:
        sys.exit(code)


def main() -> None:
    """Check the command line, then let Hydra run it."""
    launch(_job, "evaluate")


if __name__ == "__main__":
    main()
