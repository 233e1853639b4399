"""``spectrain-suggest``: which spectral map a run should take, predicted before it is run."""

import sys
from typing import Any

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig

from spectrain import plots
from spectrain.cli import build
from spectrain.cli.allowlist import check_targets
from spectrain.cli.choose_map import overrides, suggestion_for
from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import run_guarded
from spectrain.cli.launch import launch
from spectrain.cli.physics import is_physics
from spectrain.cli.run_folder import choose_run_folder
from spectrain.cli.train import quiet_libraries
from spectrain.cli.validation import validate
from spectrain.errors import InputError
from spectrain.selection import Suggestion
from spectrain.spectrum import Spectrum


def suggest(cfg: DictConfig) -> Suggestion:
    """Print the ranking, the reason and the override to type; draw the spectrum before and after.

    The kernel is that of the untrained network on at most 1,024 training points. The prediction is for preconditioned
    gradient descent with at most trainer.max_steps steps.

    Raises:
        InputError: anything in the configuration or the files it names cannot be used.
    """
    validate(cfg)
    build.check_groups(cfg)
    check_targets(cfg, cfg.allow_targets)
    if is_physics(cfg):
        raise InputError(
            "spectrain-suggest does not know equations (experiment=pinn_...); give such a run a map, such as "
            "spectral_map=power, or optimizer=gauss_newton."
        )
    folder = choose_run_folder(cfg, "suggestion")
    pl.seed_everything(cfg.seed, verbose=False)
    data = build.build_field(cfg)
    network = build.build_network(cfg, data)
    found, K = suggestion_for(cfg, data, network)
    print(found)
    print(f"To take it: {' '.join(overrides(found.spectral_map))}")
    optimizer = cfg.optimizer.get("_target_", "").rsplit(".", 1)[-1]
    print(
        f"This is the prediction for gradient descent and the kernel of the untrained network. {optimizer} flattens on "
        "its own account, and a trained network's kernel moves: when in doubt, take the smaller alpha."
    )
    spectrum = Spectrum.from_kernel(K, min(len(K), 4 * cfg.spectrum.rank))
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


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")  # type: ignore[untyped-decorator]
def _job(cfg: DictConfig) -> None:
    quiet_libraries()
    code = run_guarded(lambda: suggest(cfg), debug=cfg.show_traceback is True)
    if code:
        sys.exit(code)


def main() -> None:
    """Check the command line, then let Hydra run it."""
    launch(_job, "train")


if __name__ == "__main__":
    main()
