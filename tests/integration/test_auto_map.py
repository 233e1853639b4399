"""`spectral_map=auto`: the run chooses once, and from then on it is the run with that map."""

from pathlib import Path

import yaml
from program import TINY, call, load

LAST = "checkpoints/last.ckpt"


def chosen(out: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.startswith("spectral_map=auto: ")]
    return line.rpartition("the same again: ")[2].split()


def test_it_is_the_run_that_it_says_to_type_and_a_resumed_run_does_not_choose_again(tmp_path: Path) -> None:
    auto = call(*TINY, "spectral_map=auto", "paths.run_dir=a")
    assert auto.code == 0, auto.err
    words = chosen(auto.out)
    typed = call(*TINY, *words, "paths.run_dir=b")
    assert typed.code == 0, typed.err
    one, other = load(tmp_path / "a" / LAST), load(tmp_path / "b" / LAST)
    for name, value in one["state_dict"].items():
        assert value.equal(other["state_dict"][name]), name
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["spectral_map"]["_target_"].endswith(
        f"spectral_maps.{words[0].partition('=')[2]}"
    )

    for more in ([], ["spectral_map=auto"]):  # a requeued job repeats its whole command line
        again = call("ckpt_path=a/checkpoints/last.ckpt", "trainer.max_steps=8", *more)
        assert again.code == 0, again.err
        assert "spectral_map=auto" not in again.out
    assert load(tmp_path / "a" / LAST)["global_step"] == 8


def test_too_few_points_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    tiny = [word for word in TINY if not word.startswith(("data.", "spectrum."))]
    refused = call(*tiny, "data.size=4", "spectrum.rank=2", "spectrum.subset_size=16", "spectral_map=auto")
    assert "16 points are too few to choose a spectral map from" in refused.error
    assert not (tmp_path / "runs").exists()


def test_without_a_preconditioner_it_only_warns(tmp_path: Path) -> None:
    outcome = call(*TINY, "spectral_map=auto", "preconditioner=none")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("warning: spectral_map=auto has no effect with preconditioner=none.") == 1
