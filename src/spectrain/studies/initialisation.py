"""What an initialisation does to the kernel's spectrum, and to the PSNR at equal CPU time, alone and with S."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from spectrain.errors import InputError
from spectrain.plots import initialisation_figure
from spectrain.studies.cells import Cells
from spectrain.studies.findings import Findings
from spectrain.studies.settings import check_overrides
from spectrain.studies.timed import CELLS_PER_RUN, timed_steps, train_for

SIDES = ("none", "sample")  # conf/preconditioner


@dataclass
class Initialisation:
    """Networks that start differently, each without and with S, in equal CPU time.

    `starts` maps a name to overrides of the training program. A start costs no time, so all share the number of steps
    that the first one takes. lambda_1/lambda_64 is that of the kernel before the first step (runs without S) and of
    the last refresh (runs with S). The headline is the PSNR that the best start gains over the first one, without S.
    """

    starts: Mapping[str, Sequence[str]]
    seconds: float  # CPU, of each run
    few: int  # steps of the shorter of the two runs by which the cost of a step is measured
    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_overrides(self, "starts", "initialisations")
        if not self.seconds > 0 or self.few < 1:
            raise InputError(f"study.seconds={self.seconds} must be above 0, study.few={self.few} at least 1.")

    def run(self, cells: Cells) -> Findings:
        """All runs; one start after the other, without and with S in turn."""
        cells.total = len(SIDES) * (len(self.starts) + CELLS_PER_RUN - 1)
        first, *_ = self.starts.values()
        steps = {
            side: timed_steps(cells, f"cost {side}", [*first, f"preconditioner={side}"], self.seconds, self.few)[0]
            for side in SIDES
        }
        psnr, ratio = np.zeros((2, len(self.starts))), np.full((2, len(self.starts)), np.nan)
        for i, (name, words) in enumerate(self.starts.items()):
            for j, side in enumerate(SIDES):
                run = train_for(cells, f"{name} {side}", [*words, f"preconditioner={side}"], steps[side])
                psnr[j, i] = run.summary["psnr"]
                ratio[j, i] = run.summary["eigenvalue_ratio_1_64"] or np.nan
        names = list(self.starts)
        headline: dict[str, Any] = {"best_gain_db": float(psnr[0].max() - psnr[0, 0]), "best": names[psnr[0].argmax()]}
        table = []
        for i, name in enumerate(names):
            key = name.replace(" ", "_")
            headline |= {f"{key}_psnr": psnr[0, i], f"{key}_psnr_S": psnr[1, i], f"{key}_ratio": ratio[0, i]}
            table.append(
                (
                    name,
                    f"lambda_1/lambda_64 {ratio[0, i]:,.3g} at the start, {ratio[1, i]:,.3g} late in training with S; "
                    f"{psnr[0, i]:.1f} dB, with S {psnr[1, i]:.1f} dB",
                )
            )
        arrays = {"name": np.array(names), "ratio": ratio[0], "psnr": psnr}
        return Findings(headline, {"initialisation": (initialisation_figure, arrays)}, table)
