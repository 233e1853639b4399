"""Where a modified spectrum pays: gain at equal CPU time against the steepness of the kernel's spectrum."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
from scipy.stats import spearmanr

from spectrain.errors import InputError
from spectrain.plots import gain_map_figure
from spectrain.preconditioners import PAYS, USELESS
from spectrain.studies.cells import Cells
from spectrain.studies.findings import Findings
from spectrain.studies.timed import CELLS_PER_RUN, timed_steps, train_for

SIDES = ("none", "sample", "auto")  # conf/preconditioner


@dataclass
class WhereItPays:
    """Each network with each base optimizer: without S, with it, and with ``preconditioner=auto``.

    All get the same CPU seconds, and each a schedule that ends with them. Steepness is lambda_1/lambda_64 of the kernel
    after the warm-up: a run with S of ``2 * warmup`` steps, which is also one of the two by which the cost of a step is
    measured. The headline is Spearman's rank correlation of steepness and gain; 1: the spectrum sorts the gains.
    """

    networks: Sequence[str]
    optimizers: Sequence[str]
    seconds: float  # CPU, of each run
    warmup: int
    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.networks or not self.optimizers:
            raise InputError("study.networks and study.optimizers must each name at least one.")
        if not self.seconds > 0 or self.warmup < 1:
            raise InputError(f"study.seconds={self.seconds} must be above 0, study.warmup={self.warmup} at least 1.")

    def run(self, cells: Cells) -> Findings:
        """All runs, one pair of network and optimizer after the other."""
        pairs = list(product(self.networks, self.optimizers))
        cells.total = len(pairs) * len(SIDES) * CELLS_PER_RUN
        found = [self._pair(cells, network, optimizer) for network, optimizer in pairs]
        gain = np.array([f["gain_db"] for f in found])
        ratio = np.array([f["ratio"] for f in found])
        arrays = {
            "network": np.array([network for network, _ in pairs]),
            "optimizer": np.array([optimizer for _, optimizer in pairs]),
            "ratio": ratio,
            "gain": gain,
            "auto_gain": np.array([f["auto_gain_db"] for f in found]),
            "chosen": np.array([f["chosen"] for f in found]),
            "decay": np.array([f["decay"] for f in found]),
            "thresholds": np.array([USELESS, PAYS]),
        }
        correlation = float(spearmanr(ratio, gain).statistic) if len(pairs) > 2 else None
        headline: dict[str, Any] = {"rank_correlation": correlation}
        for (network, optimizer), values in zip(pairs, found, strict=True):
            headline |= {f"{network}_{optimizer}_{name}": value for name, value in values.items()}
        table = [(" ".join(pair), _row(values)) for pair, values in zip(pairs, found, strict=True)]
        if correlation is not None:
            table.append(("rank correlation", f"{correlation:.2f} of steepness and gain"))
        return Findings(headline, {"where_it_pays": (gain_map_figure, arrays)}, table)

    def _pair(self, cells: Cells, network: str, optimizer: str) -> dict[str, Any]:
        psnr, warm, last = {}, {}, {}
        for side in SIDES:
            name = f"{network} {optimizer} {side}"
            words = [f"model={network}", f"optimizer={optimizer}", f"preconditioner={side}"]
            steps, warm[side] = timed_steps(cells, name, words, self.seconds, self.warmup)
            last[side] = train_for(cells, name, words, steps)
            value = last[side].summary["psnr"]
            psnr[side] = float("nan") if value is None else float(value)
        return {
            "gain_db": psnr["sample"] - psnr["none"],
            "auto_gain_db": psnr["auto"] - psnr["none"],
            "psnr_db": psnr["none"],
            "ratio": float(warm["sample"].summary["eigenvalue_ratio_1_64"] or "nan"),
            "decay": float(warm["sample"].summary["eigenvalue_decay"] or "nan"),
            "chosen": str(last["auto"].summary["preconditioner"]),
        }


def _row(values: dict[str, Any]) -> str:
    chosen = "off" if values["chosen"] == "none" else "on"
    return (
        f"lambda_1/lambda_64 {values['ratio']:,.3g}, lambda_i ~ i^-{values['decay']:.2f}: {values['psnr_db']:.1f} dB "
        f"without S, {values['gain_db']:+.1f} dB with it; auto: {chosen} at the end, {values['auto_gain_db']:+.1f} dB"
    )
