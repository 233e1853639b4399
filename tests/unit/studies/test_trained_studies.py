"""Studies that train: what they make of their runs; the runs are made up here, except in the slow tests."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from spectrain import InputError
from spectrain.studies import Cells, Initialisation, Trained, WhereItPays
from spectrain.studies.budget import steps_to_fill

# lambda_1/lambda_64 of each network, and what S gains
RATIOS = {"mlp": (4000.0, 8.0), "fourier": (200.0, 3.0), "siren": (2.8, -1.0)}


class Program:
    """Stands for training: .1 s a step (.2 s with S) after half a second, and 10 dB and the gain after it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def __call__(self, words: Sequence[str], place: Path) -> Trained:
        self.calls.append((place.name, list(words)))
        given = dict(word.split("=", 1) for word in words)
        steps, side = int(given["trainer.max_steps"]), given["preconditioner"]
        ratio, gain = RATIOS[given["model"]]
        on = side == "sample" or (side == "auto" and gain > 0)
        scale = float(given.get("model.weight_scale", 1))
        summary = {
            "cpu_seconds": 0.5 + steps * (0.2 if on else 0.1),
            "psnr": 10 + scale + gain * on,
            "eigenvalue_ratio_1_64": ratio / scale,
            "eigenvalue_decay": math.log10(ratio),
            "preconditioner": ("sample" if on else "none") if side == "auto" else None,
        }
        return Trained({"psnr": np.array([summary["psnr"]])}, summary)


def test_steps_fill_the_budget() -> None:
    assert steps_to_fill(10.5, 20, 0.5 + 2.0, 0.5 + 4.0) == 100  # half a second to start, .1 s a step
    assert steps_to_fill(0.1, 20, 2.5, 4.5) == 1
    assert steps_to_fill(10, 20, 2.0, 1.9) == 862, "a cost below 0 is not believed: .2 * 1.9 / 40"


def test_the_map_of_the_method(tmp_path: Path) -> None:
    program = Program()
    cells = Cells(tmp_path, program, say=lambda line: None)
    found = WhereItPays(networks=list(RATIOS), optimizers=["adam"], seconds=10.5, warmup=20).run(cells)
    assert next(iter(found.headline)) == "rank_correlation" and found.headline["rank_correlation"] == 1
    assert found.headline["mlp_adam_gain_db"] == 8 and found.headline["siren_adam_auto_gain_db"] == 0
    assert [found.headline[f"{n}_adam_chosen"] for n in RATIOS] == ["sample", "sample", "none"]
    steps = {name: dict(w.split("=", 1) for w in words)["trainer.max_steps"] for name, words in program.calls}
    assert (steps["mlp_adam_none"], steps["mlp_adam_sample"]) == ("100", "50"), "equal time, not equal steps"
    assert len(program.calls) == cells.total == 27
    draw, arrays = found.figures["where_it_pays"]
    np.testing.assert_array_equal(arrays["ratio"], [4000, 200, 2.8])
    assert len(draw(**arrays).axes) == 2


def test_initialisations_share_their_steps(tmp_path: Path) -> None:
    program = Program()
    cells = Cells(tmp_path, program, say=lambda line: None)
    starts = {"plain": ["model=siren"], "weights x 3": ["model=siren", "model.weight_scale=3"]}
    found = Initialisation(starts=starts, seconds=10.5, few=20).run(cells)
    assert found.headline["best_gain_db"] == 2 and found.headline["best"] == "weights x 3"
    assert found.headline["weights_x_3_psnr_S"] == 12
    assert len(program.calls) == cells.total == 8
    draw, arrays = found.figures["initialisation"]
    assert arrays["psnr"].shape == (2, 2) and len(draw(**arrays).axes) == 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WhereItPays([], ["adam"], 1, 1), "study.networks"),
        (lambda: WhereItPays(["mlp"], ["adam"], 0, 1), "study.seconds=0"),
        (lambda: WhereItPays(["mlp"], ["adam"], 1, 0), "study.warmup=0"),
        (lambda: Initialisation({"one": []}, 1, 1), "at least two"),
        (lambda: Initialisation({"one": [], "two": []}, -1, 1), "study.seconds=-1"),
        (lambda: Initialisation({"one": [], "two": []}, 1, 0), "study.few=0"),
    ],
)
def test_settings_that_cannot_be_used(make: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()  # type: ignore[operator]
