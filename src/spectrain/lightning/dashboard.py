"""The dashboard of a W&B project: its panels as data, and the workspace that W&B's own package makes of them."""

from dataclasses import dataclass
from typing import Any

import wandb

from spectrain.errors import InputError
from spectrain.lightning.wandb_run import NO_LOGIN, unreachable
from spectrain.metrics import ClassMetrics, ImageMetrics, RegressionMetrics, SignalMetrics

STEP, CPU = "trainer/global_step", "time/cpu_seconds"
PACKAGE = "wandb-workspaces"


@dataclass(frozen=True)
class Panel:
    """Scalars against `x`, by name or by one pattern; a table or figures where `kind` says so."""

    title: str
    names: tuple[str, ...]
    x: str = STEP
    logarithmic: bool = False
    kind: str = "line"  # line, pattern, figures, table, runs


MEASURES = (ImageMetrics, SignalMetrics, RegressionMetrics, ClassMetrics)
DIRECTIONS = {name: higher for measures in MEASURES for name, higher in measures.directions.items()}
# Beside the metrics that have a best value: errors per band and of equations, and losses.
OTHERS = (".*error", ".*loss", "cross_entropy")
HIGH = f"^val/({'|'.join(name for name, higher in DIRECTIONS.items() if higher)})"
LOW = f"^val/({'|'.join([*(name for name, higher in DIRECTIONS.items() if not higher), *OTHERS])})"
RESULTS = ("reconstruction", "pictures", "signal", "frequencies", "solution", "convergence")
QUALITIES = tuple(measures.quality.name for measures in MEASURES)
SECTIONS: dict[str, tuple[Panel, ...]] = {
    "Quality": (
        Panel("Quality against steps", (HIGH,), kind="pattern"),
        Panel("Quality against CPU seconds", (HIGH,), CPU, kind="pattern"),
        Panel("Errors against steps", (LOW,), logarithmic=True, kind="pattern"),
        Panel("Errors against CPU seconds", (LOW,), CPU, logarithmic=True, kind="pattern"),
    ),
    "Training": (
        Panel("Loss", ("train/loss",), logarithmic=True),
        Panel("Learning rate", ("optimizer/lr",)),
    ),
    "Spectrum": (
        Panel("Condition number", ("spectrum/condition_before", "spectrum/condition_after"), logarithmic=True),
        Panel("Energy of the residual per band of modes", ("^spectrum/band_",), logarithmic=True, kind="pattern"),
        Panel("Largest eigenvalue", ("spectrum/largest_eigenvalue",), logarithmic=True),
        Panel("Resolved modes", ("spectrum/resolved_modes",)),
        Panel("Modes that carry the kernel", ("spectrum/effective_rank", "spectrum/participation_ratio")),
        Panel("Modes", ("spectrum/modes",), kind="table"),
    ),
    "Preconditioner": (
        Panel("Strength", ("preconditioner/strength",)),
        Panel("Steps that the guard changed", ("preconditioner/shrunk_steps", "preconditioner/rejected_steps")),
    ),
    "Time": (
        Panel("Steps per second", ("time/steps_per_second",)),
        Panel("Share of refreshes", ("time/refresh_share",)),
        Panel("Seconds of a refresh", ("time/refresh_seconds",)),
    ),
    "Figures": (
        Panel("Results", tuple(f"figures/{name}" for name in (*RESULTS, *QUALITIES)), kind="figures"),
        Panel("Spectra", ("figures/spectrum", "figures/band_energy"), kind="figures"),
    ),
    "Runs": (Panel("Settings", (), kind="runs"),),
}


def workspace(project: str, entity: str) -> Any:
    """The project's workspace, not yet saved. What it does not name, such as histograms, W&B adds below.

    Raises:
        InputError: the package that makes it is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as parts
        import wandb_workspaces.workspaces as whole
    except ImportError as error:
        raise InputError(
            f"the dashboard is built with {PACKAGE}, which is not installed: pip install 'spectrain[dashboard]'."
        ) from error
    sections = [
        whole.Section(name=title, panels=[_made(parts, panel) for panel in panels], is_open=True)
        for title, panels in SECTIONS.items()
    ]
    return whole.Workspace(
        entity=entity, project=project, name="spectrain", sections=sections, auto_generate_panels=True
    )


def _made(parts: Any, panel: Panel) -> Any:
    if panel.kind == "figures":
        return parts.MediaBrowser(title=panel.title, media_keys=list(panel.names))
    if panel.kind == "table":
        return parts.WeavePanelSummaryTable(table_name=panel.names[0])
    if panel.kind == "runs":
        return parts.RunComparer()
    which = {"metric_regex": panel.names[0]} if panel.kind == "pattern" else {"y": list(panel.names)}
    return parts.LinePlot(title=panel.title, x=panel.x, log_y=panel.logarithmic, **which)


def publish(project: str, entity: str | None = None) -> str:
    """Save the workspace in W&B and return its address.

    Raises:
        InputError: the package or the login is missing, the server is away or refuses.
    """
    made = workspace(project, entity or "")  # before anybody is asked
    reason = unreachable(wandb.setup().settings.base_url)
    try:
        if reason is None and not wandb.login(prompt=False):
            reason = NO_LOGIN
        if reason is None:
            made.entity = entity or wandb.Api().default_entity
            made.save()
    except Exception as error:  # whatever the network makes of it
        reason = str(error).splitlines()[0]
    if reason is not None:
        raise InputError(f"the dashboard of {project} was not made: {reason}.")
    return str(made.url)
