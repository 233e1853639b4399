"""``spectrain-evaluate``: the reconstruction of a checkpoint at any resolution, and its metrics."""

import json
import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from spectrain import plots
from spectrain.cli import build
from spectrain.cli.allowlist import check_targets
from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import run_guarded
from spectrain.cli.launch import launch
from spectrain.cli.physics import is_physics
from spectrain.cli.run_folder import load_checkpoint
from spectrain.cli.train import quiet_libraries
from spectrain.cli.validation import OF_EVALUATION, validate
from spectrain.data import read_image
from spectrain.data.image import coordinate_grid
from spectrain.errors import InputError
from spectrain.metrics import ImageMetrics

CHUNK = 65536


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Write the reconstruction, the comparison and metrics.json; return the metrics.

    At another size than that of the training, the target is the same photograph resized to it.

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
            "field.vtk, summary.json). Only pictures are evaluated here."
        )
    data = build.build_data(run)
    network = build.build_network(run, data)
    load_network(network, checkpoint, cfg.ckpt_path)

    target = data.image
    if cfg.size is not None:
        target = torch.from_numpy(read_image(run.data.path, cfg.size, grayscale=run.data.grayscale))
    prediction = predict_image(network, target.shape[0], target.shape[1], data.grid_shape)
    metrics = ImageMetrics(target, data.heldout_mask if cfg.size is None else None)
    metrics.update(prediction)
    result = {name: float(value) for name, value in metrics.compute().items()}
    folder = Path(cfg.output_dir or Path(cfg.ckpt_path).resolve().parent.parent / "evaluation")
    write_evaluation(folder, target, metrics.reconstruction(), result)
    quality = f"PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}"
    print(f"{quality} at {target.shape[1]} x {target.shape[0]} pixels; written to {folder}")
    return result


def load_network(network: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    """Put the checkpoint's weights into the network."""
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"ckpt_path={path} does not fit the network of its own configuration: {error}") from error
    network.to(next(iter(weights.values())).dtype).eval()


@torch.no_grad()
def predict_image(network: nn.Module, rows: int, columns: int, trained: tuple[int, int]) -> Tensor:
    """The network at every pixel of a picture of rows x columns that covers what the trained one covers, [N, C]."""
    dtype = next(network.parameters()).dtype
    return torch.cat([network(x) for x in coordinate_grid(rows, columns, trained).to(dtype).split(CHUNK)]).float()


def write_evaluation(folder: Path, target: Tensor, image: Tensor, result: dict[str, float]) -> None:
    """``reconstruction.png`` (the picture itself), ``comparison.*`` (beside the target) and ``metrics.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    Image.fromarray(np.squeeze(pixels, axis=2) if pixels.shape[2] == 1 else pixels).save(folder / "reconstruction.png")
    arrays = {"target": target.numpy(), "reconstruction": image.numpy()}
    plots.save_figure(plots.reconstruction_figure(**arrays), folder / "comparison", arrays)
    (folder / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="evaluate")  # type: ignore[untyped-decorator]
def _job(cfg: DictConfig) -> None:
    quiet_libraries()
    code = run_guarded(lambda: evaluate(cfg), debug=bool(cfg.show_traceback))
    if code:
        sys.exit(code)


def main() -> None:
    """Check the command line, then let Hydra run it."""
    launch(_job, "evaluate")


if __name__ == "__main__":
    main()
