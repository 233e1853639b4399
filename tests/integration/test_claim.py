"""The claim itself, in a real short training: a modified spectrum reaches what plain Adam cannot in the same steps."""

from pathlib import Path

import pytest
from program import train

RUN = (
    "data.size=32",
    "model.width=128",
    "model.depth=3",
    "trainer.max_steps=100",
    "trainer.val_check_interval=100",
    "trainer.accelerator=cpu",
    "spectrum.subset_size=1024",
    "spectrum.rank=64",
    "spectral_map=power",
    "spectral_map.alpha=0.5",
    "logger=none",
    "figures=false",
    "baseline=false",
)


@pytest.mark.parametrize("seed", [0])
def test_plain_adam_cannot_reach_it_in_the_same_steps(tmp_path: Path, seed: int) -> None:
    """Camera at 32x32, width 128, depth 3, 100 full-batch steps, cosine schedule, centred output bias on both sides.

    Measured (dB), seeds 0, 1, 2:   the default (SOAP + S)          33.7  32.5  34.4
                                    Adam + S, lr .03                26.3  28.0  27.1
                                    Adam, lr .015                   19.5  18.6  18.8
                                    Adam, lr .03                    18.3  19.6  17.8
                                    Adam, lr .06                    18.0  22.2  19.4
    So 4 dB between Adam with S and the best of three rates without it, and 8 dB with the default, hold for each seed.
    """
    plain = max(
        train(tmp_path / lr, "optimizer=adam", "preconditioner=none", f"optimizer.lr={lr}", f"seed={seed}", tiny=RUN)[
            "psnr"
        ]
        for lr in ("0.015", "0.03", "0.06")
    )
    same = train(tmp_path / "s", "optimizer=adam", "optimizer.lr=0.03", f"seed={seed}", tiny=RUN)["psnr"]
    default = train(tmp_path / "default", f"seed={seed}", tiny=RUN)["psnr"]
    assert same > plain + 4
    assert default > plain + 8


@pytest.mark.slow
def test_the_gain_of_make_train(tmp_path: Path) -> None:
    """The program's own default, 64x64 and 300 steps, against itself without S: 10 dB or more, as the issue asks."""
    summary = train(tmp_path / "run", "logger=none", "figures=false", "trainer.accelerator=cpu", tiny=())
    assert summary["gain_db"] > 10
