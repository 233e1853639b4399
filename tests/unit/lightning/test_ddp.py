"""One, two and four ranks under DDP train alike: same losses, same validation, same weights on all of them."""

import warnings
from pathlib import Path

import pytest
import torch
from runs_for_ranks import CLOCK, RUNS, train

from processes import run_ranks

WORKER = """
import logging, warnings
from pathlib import Path
from runs_for_ranks import train
warnings.simplefilter("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
ranks = int(os.environ["WORLD_SIZE"])
def run(name):
    os.environ["WORLD_SIZE"] = str(ranks)  # Lightning takes it away at the end of a run
    place = Path(folder, name.replace(", ", "_"))
    if rank == 0:
        place.mkdir()
    return train(name, place, ranks)
leave({name: run(name) for name in os.environ["RUNS"].split(";")})
"""
QUICK = ["sample", "parameter"]


@pytest.mark.parametrize(
    ("ranks", "names"),
    [
        (2, QUICK),
        pytest.param(2, [name for name in RUNS if name not in QUICK], marks=pytest.mark.slow),
        pytest.param(4, list(RUNS), marks=pytest.mark.slow),
    ],
)
def test_ranks_train_alike(tmp_path: Path, ranks: int, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS", ";".join(names))
    results = run_ranks(WORKER, ranks, tmp_path, Path(__file__).parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            first = results[0][name]
            for other in results[1:]:
                assert other[name]["loss"] == first["loss"], name
                assert torch.equal(other[name]["basis"], first["basis"]), name
                assert all(torch.equal(a, b) for a, b in zip(other[name]["weights"], first["weights"], strict=True))
            assert (tmp_path / name.replace(", ", "_") / "metrics.csv").exists()
            if name == CLOCK:
                continue
            alone = train(name, tmp_path, 1)
            assert first["loss"] == pytest.approx(alone["loss"], rel=1e-9), name
            assert first["psnr"] == pytest.approx(alone["psnr"], rel=1e-9), name
            assert first["refreshes"] == alone["refreshes"], name
