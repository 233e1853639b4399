"""Runs in equal CPU time: each schedule is stretched to the number of steps that fill the budget."""

from collections.abc import Sequence

from spectrain.studies.budget import steps_to_fill
from spectrain.studies.cells import Cells, Trained

CELLS_PER_RUN = 3  # two short ones and the run itself


def timed_steps(cells: Cells, name: str, words: Sequence[str], seconds: float, few: int) -> tuple[int, Trained]:
    """How many steps fill the budget, from runs of `few` and twice as many; and the longer of them."""
    short = [cells.train(f"{name}, {steps} steps", [*words, *_length(steps)]) for steps in (few, 2 * few)]
    first, second = (float(run.summary["cpu_seconds"]) for run in short)
    return steps_to_fill(seconds, (few, first), (2 * few, second)), short[1]


def train_for(cells: Cells, name: str, words: Sequence[str], steps: int) -> Trained:
    """The run itself."""
    return cells.train(name, [*words, *_length(steps)])


def _length(steps: int) -> list[str]:
    every = max(1, steps // 20)
    return [f"trainer.max_steps={steps}", f"trainer.val_check_interval={every}", "figures=false"]
