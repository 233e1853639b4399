"""What a finished run on an equation leaves: summary.json, figures, the field as .npz and VTK, and a short table.

Legend: R, K points along the axes of a map, G along each axis of the grid, k modes.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table

from spectrain import plots
from spectrain.lightning.interrupt import was_interrupted
from spectrain.lightning.outputs import Outputs
from spectrain.lightning.physics_data import PDEDataModule
from spectrain.lightning.physics_history import PhysicsHistory
from spectrain.lightning.physics_module import PhysicsModule
from spectrain.lightning.report import environment, save_figures
from spectrain.lightning.tracking import show, write_modes
from spectrain.optim import GaussNewton
from spectrain.pde.evaluation import Grid, grid, predict, residual_size
from spectrain.pde.export import write_vtk
from spectrain.spectral_maps import identity, ridge
from spectrain.spectrum import Spectrum
from spectrain.spectrum.mode_table import mode_energies, mode_table

Drawn = list[tuple[str, Path, Any]]
# Points along each axis where the field has three.
CUBE = 41


def finish_physics(
    folder: Path,
    trainer: pl.Trainer,
    module: PhysicsModule,
    data: PDEDataModule,
    history: PhysicsHistory,
    *,
    figures: bool = True,
) -> dict[str, Any]:
    """Write everything, show it to the loggers, print the table; return the summary."""
    module.measure(trainer.global_step)
    summary = summarize(trainer, module, history)
    if trainer.is_global_zero:
        outputs = Outputs()
        outputs.write("history.csv", lambda: history.write(folder / "history.csv"))
        outputs.write_summary(folder, summary)
        arrays = field_arrays(module, data)
        outputs.write("field.npz", lambda: np.savez_compressed(folder / "field.npz", **cast(Any, arrays)))
        outputs.write("field.vtk", lambda: _write_vtk(folder / "field.vtk", arrays, data))
        drawn = draw_figures(outputs, folder / "figures", module, data, history, arrays) if figures else []
        modes = None if history.initial is None else modes_left(module, history.initial)
        if modes is not None:
            outputs.write("modes.csv", lambda: write_modes(folder, modes))
        print_table(folder, summary)
        show(trainer.loggers, summary, drawn, modes, step=trainer.global_step)
        outputs.finish(trainer.loggers)
    return summary


def summarize(trainer: pl.Trainer, module: PhysicsModule, history: PhysicsHistory) -> dict[str, Any]:
    """One flat dictionary: errors, losses, coefficients, steps, times, memory, versions."""
    optimizer = trainer.optimizers[0] if trainer.optimizers else None
    l2 = history.column("l2_error")
    known = l2[l2.isfinite()]
    return {
        **module.measured,
        "best_l2_error": float(known.min()) if len(known) else None,
        "loss": history.loss,
        "best_loss": history.best_loss,
        **{name: float(value.detach()) for name, value in module.problem.coefficients().items()},
        "steps": trainer.global_step,
        "interrupted": was_interrupted(trainer),
        "fallbacks": optimizer.state["fallbacks"] if isinstance(optimizer, GaussNewton) else None,  # type: ignore[index]
        "parameters": sum(p.numel() for p in module.problem.parameters()),
        "seconds": history.clock.seconds,
        "cpu_seconds": history.clock.cpu_seconds,
        "refreshes": module.refreshes,
        "refresh_seconds": module.refresh_seconds,
        "factored_kernel": module.problem.by_jets,
        **environment(),
    }


def field_arrays(module: PhysicsModule, data: PDEDataModule) -> dict[str, np.ndarray]:
    """Axes, solution [*grid, C], reference and error where known, residual [*grid]; NaN outside the domain."""
    equation = data.equation
    made = grid(equation.domain, data.resolution if equation.domain.dim <= 2 else CUBE)
    solution, reference = predict(module.problem, made.x), equation.exact(made.x)
    arrays = {f"axis_{i}": axis.numpy() for i, axis in enumerate(made.axes)}
    arrays["solution"] = _on_grid(solution, made)
    arrays["residual"] = _on_grid(residual_size(module.problem, made.x)[:, None], made)[..., 0]
    if reference is not None:
        arrays["reference"] = _on_grid(reference.detach(), made)
        arrays["error"] = np.abs(arrays["solution"] - arrays["reference"])
    return arrays


def _on_grid(values: torch.Tensor, made: Grid) -> np.ndarray:
    values = torch.where(made.inside[:, None], values.double(), torch.nan)
    return values.reshape(*made.shape, -1).numpy()


def _write_vtk(path: Path, arrays: dict[str, np.ndarray], data: PDEDataModule) -> None:
    axes = [arrays[f"axis_{i}"] for i in range(data.in_features)]
    wide = [axis for axis in axes if len(axis) > 1]
    shape = tuple(len(axis) for axis in wide)
    columns = {"residual": arrays["residual"].reshape(shape)}
    for name in ("solution", "reference", "error"):
        if name in arrays:
            parts = np.moveaxis(arrays[name], -1, 0)
            single = len(parts) == 1
            columns |= {name if single else f"{name}_{c}": part.reshape(shape) for c, part in enumerate(parts)}
    write_vtk(path, wide, columns)


def draw_figures(
    outputs: Outputs,
    folder: Path,
    module: PhysicsModule,
    data: PDEDataModule,
    history: PhysicsHistory,
    arrays: dict[str, np.ndarray],
) -> Drawn:
    """Maps, convergence, spectrum before and after training; each a PNG, a PDF and the numbers. And an animation."""
    made: dict[str, tuple[Any, dict[str, Any]]] = {}
    for c in range(data.out_features):
        made["solution" if data.out_features == 1 else f"solution_{c}"] = _map(arrays, data, c)
    columns = ("step", "cpu_seconds", "point_loss", "fresh_loss", "l2_error", "h1_error")
    values = {name.replace("point_loss", "loss"): history.column(name).numpy() for name in columns}
    values = {name: column for name, column in values.items() if np.isfinite(column).any()}
    made["convergence"] = (plots.convergence_figure, values)
    after = module.spectrum()
    if history.initial is not None:
        k = min(history.initial.rank, max(1, after.resolved))  # below the noise floor there is nothing to see
        made["spectrum"] = (
            plots.kernel_figure,
            {
                "initial": history.initial.eigenvalues[:k].numpy(),
                "final": after.eigenvalues[:k].numpy(),
                "reshaped": _reshaped(module, after)[:k],
            },
        )
    drawn = save_figures(outputs, folder, made)
    if data.equation.domain.has_time:
        outputs.write("solution.gif", lambda: _animate(folder / "solution.gif", arrays, data.in_features))
    return drawn


def _animate(path: Path, arrays: dict[str, np.ndarray], inputs: int) -> None:
    """The first output over time; of more than two dimensions of space, on the grid's line through their middle."""
    *space, time = (arrays[f"axis_{i}"] for i in range(inputs))
    space = [axis for axis in space if len(axis) > 1]
    shape = (*map(len, space), len(time))
    fields = {name: arrays[name][..., 0].reshape(shape) for name in ("solution", "reference") if name in arrays}
    plots.save_animation(path, space, time, fields["solution"], fields.get("reference"))


def modes_left(module: PhysicsModule, initial: Spectrum) -> dict[str, list[float]]:
    """The table of the first spectrum's modes, with the energy of the present network's residuals.

    These are at the points and with the weights of step 0, those of the eigenvectors.
    """
    with torch.no_grad():
        energy = mode_energies(initial, module.first_residuals()())
    return mode_table(initial, _map_in_use(module, initial), energy)


def _map_in_use(module: PhysicsModule, spectrum: Spectrum) -> Callable[[torch.Tensor], torch.Tensor]:
    """The optimizer's ridge on a spectrum, or the preconditioner's map."""
    optimizer = module.trainer.optimizers[0]
    if isinstance(optimizer, GaussNewton):
        return ridge(optimizer.param_groups[0]["mu"] * spectrum.trace)
    return identity() if module.preconditioner is None else module.preconditioner.effective_map


def _reshaped(module: PhysicsModule, spectrum: Spectrum) -> np.ndarray:
    """g(lambda) under the map that the run used."""
    used, eigenvalues = _map_in_use(module, spectrum), spectrum.eigenvalues
    # The ridge acts on every eigenvalue, the preconditioner on resolved modes only.
    ratio = used(eigenvalues) if isinstance(module.trainer.optimizers[0], GaussNewton) else spectrum.ratio(used)
    reshaped: np.ndarray = (ratio * eigenvalues).numpy()
    return reshaped


def _map(arrays: dict[str, np.ndarray], data: PDEDataModule, c: int) -> tuple[Any, dict[str, Any]]:
    """Of two inputs: all of them, or the first two with the others at their middle (time at its end)."""
    d, has_time = data.in_features, data.equation.domain.has_time
    axes = [arrays[f"axis_{i}"] for i in range(d)]
    if d == 1:
        reference = arrays["reference"][:, c] if "reference" in arrays else None
        return plots.profile_figure, {"x": axes[0], "solution": arrays["solution"][:, c], "reference": reference}
    wide = [i for i in range(d) if len(axes[i]) > 1]
    kept = wide[:2]
    cut = tuple(slice(None) if i in kept else (-1 if has_time and i == d - 1 else len(axes[i]) // 2) for i in range(d))
    names = [f"x{i + 1}" if d > 3 else "xyz"[i] for i in range(d)]
    if has_time:
        names[-1] = "t"
    maps: dict[str, np.ndarray] = {
        name: arrays[name][cut][..., c] for name in ("solution", "reference", "error") if name in arrays
    }
    maps["residual"] = arrays["residual"][cut]
    return plots.map_figure, {
        "first": axes[kept[0]],
        "second": axes[kept[1]],
        "names": [names[i] for i in kept],
        **maps,
    }


def print_table(folder: Path, summary: dict[str, Any]) -> None:
    """The run in a few lines, for a person."""
    table = Table(show_header=False, box=None, pad_edge=False)
    if "l2_error" in summary:
        h1 = f", H1 {summary['h1_error']:.2e}" if "h1_error" in summary else ""
        table.add_row("error", f"relative L2 {summary['l2_error']:.2e}{h1}")
    table.add_row("loss", f"{summary['point_loss']:.2e} on the points trained on, {summary['fresh_loss']:.2e} on fresh")
    for name in summary:
        if name.endswith("_error") and name.removesuffix("_error") in summary:
            value = summary[name.removesuffix("_error")]
            table.add_row(name.removesuffix("_error"), f"{value:.6g} (relative error {summary[name]:.1e})")
    fallbacks = f", {summary['fallbacks']} of them plain" if summary["fallbacks"] else ""
    table.add_row("time", f"{summary['seconds']:.1f} s for {summary['steps']} steps{fallbacks}")
    table.add_row("summary", str(folder / "summary.json"))
    table.add_row("field", f"{folder / 'field.npz'}, {folder / 'field.vtk'}")
    if (folder / "figures").exists():
        table.add_row("figures", str(folder / "figures"))
    Console(file=sys.stdout, highlight=False, width=200).print(table)
