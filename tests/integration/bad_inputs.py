"""What people get wrong, by category: (words of the command line, parts that the one sentence must contain).

The files that the words name are those of `make_files`.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from spectrain.cli.rules import RULES

Case = tuple[list[str], list[str]]
VALUES: dict[str, Any] = {
    "many": "many", "-1": -1, "nan": float("nan"), "[]": [], "0": 0, "true": True, "inf": float("inf"), "null": None,
    "1.5": 1.5, "-2.5": -2.5, "''": "", "3": 3,
}  # fmt: skip
OF_COMPARE = ("budget", "seeds", "rates", "tasks", "methods", "calibration_steps")
BROKEN = ("png", "jpg", "tif", "webp", "gif", "bmp", "ppm", "jp2")


def of_rules() -> list[Case]:
    """Every key of the table with a value that is not allowed to it, of another kind from key to key."""
    cases: list[Case] = [(["++ckpt_path=1.5"], ["ckpt_path=1.5 is not a path"])]
    for number, (key, rule) in enumerate(RULES.items()):
        if key == "ckpt_path":  # read first
            continue
        turn = number % len(VALUES)
        words = [*VALUES][turn:] + [*VALUES][:turn]
        refused = [word for word in words if not rule.accepts(_as_config(VALUES[word]))]
        cases += [([f"++{key}={word}"], [key, "it must be"]) for word in refused[:1]]
    return cases


def _as_config(value: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create(value) if isinstance(value, list) else value


CASES: dict[str, list[Case]] = {
    "every key of the rules": of_rules(),
    "misspelt keys": [
        (["model.wdith=3"], ["model.wdith", "model.width"]),
        (["model.widht=3"], ["model.width"]),
        (["data.sise=3"], ["data.size"]),
        (["trainer.max_step=3"], ["trainer.max_steps"]),
        (["trainer.maxsteps=3"], ["trainer.max_steps"]),
        (["spectrum.ranks=3"], ["spectrum.rank"]),
        (["spectral_map.alhpa=3"], ["spectral_map.alpha"]),
        (["optimiser.lr=3"], ["optimizer.lr"]),
        (["optimizer.learning_rate=3"], ["optimizer.learning_rate"]),
        (["Seed=3"], ["seed"]),
        (["batch_size=3"], ["data.batch_size"]),
        (["width=3"], ["model.width"]),
        (["model.width.deep=3"], ["model.width.deep"]),
        (["~model.wdith"], ["model.wdith"]),
        (["=3"], ["key"]),
        (["model.width"], ["key=value"]),
        (["model.width", "=", "3"], ["key=value"]),
        (["--model.width=3"], ["--model.width"]),
        (["-x"], ["-x"]),
        (["--confg-dir=x"], ["--config-dir"]),
    ],
    "misspelt groups": [
        (["modle=mlp"], ["model"]),
        (["model=mpl"], ["model=mlp"]),
        (["model=MLP"], ["model=MLP", "mlp"]),
        (["optimizer=adma"], ["optimizer=adam"]),
        (["optimizer="], ["optimizer"]),
        (["optimizer=null"], ["~optimizer"]),
        (["preconditioner=samples"], ["preconditioner=sample"]),
        (["spectral_map=flaten"], ["spectral_map=flatten"]),
        (["schedule=cosin"], ["schedule=cosine"]),
        (["logger=wandbb"], ["logger=wandb"]),
        (["trainer=dpd"], ["trainer=ddp"]),
        (["data=images"], ["data=image"]),
        (["experiment=pinn_poison2d"], ["experiment=pinn_poisson2d"]),
        (["debug=tracebak"], ["debug=traceback"]),
        (["callbacks=pdf"], ["callbacks=pde"]),
        (["~model"], ["model.adaptive_lr", "not found"]),
        (["~trainer"], ["trainer.max_steps", "not found"]),
        (["~callbacks.spectrum"], ["callbacks.spectrum", "missing"]),
        (["optimizer=[adam,sgd]"], ["optimizer"]),
        (["model=mlp,siren"], ["-m"]),
        (["model={mlp:3}"], ["model"]),
    ],
    "missing files and folders in place of files": [
        (["data.path=nowhere.png"], ["nowhere.png", "does not exist"]),
        (["data.path=phot.png"], ["did you mean photo.png"]),
        (["data.path=folder"], ["data.path=folder", "directory"]),
        (["data.path=."], ["data.path=.", "directory"]),
        (["data.path=/dev/null"], ["data.path=/dev/null"]),
        (["data.path=pipe.png"], ["pipe.png", "regular file"]),
        (["data.path=loop.png"], ["loop.png"]),
        (["data.path=photo.png/x"], ["photo.png/x"]),
        (["data.path=skimage:"], ["skimage:"]),
        (["data.path=skimage:../camera"], ["skimage:../camera"]),
        (["data.path=''"], ["data.path"]),
        (["data.path=[photo.png]"], ["data.path"]),
        (["data.path={a:1}"], ["data.path"]),
        (["data.path=true"], ["data.path=True"]),
        (["ckpt_path=nowhere.ckpt"], ["nowhere.ckpt", "does not exist"]),
        (["ckpt_path=folder"], ["folder"]),
        (["ckpt_path=pipe.png"], ["pipe.png"]),
        (["ckpt_path=/dev/null"], ["/dev/null"]),
        (["ckpt_path=loop.png"], ["loop.png"]),
        (["ckpt_path=killed/checkpoints/last.ckpt"], ["before its first checkpoint", "killed"]),
        (["--config-dir=nowhere"], ["--config-dir=nowhere"]),
        (["--config-dir=photo.png"], ["--config-dir=photo.png"]),
        (["--config-path=/nowhere"], ["--config-path"]),
        (["--config-name=nothing"], ["nothing"]),
    ],
    "corrupt and empty files": [
        *((([f"data.path=cut.{kind}"]), [f"data.path=cut.{kind}", "broken or truncated"]) for kind in BROKEN),
        *(([f"data.path=empty.{kind}"], [f"empty.{kind}", "empty file"]) for kind in BROKEN[:3]),
        (["data.path=text.png"], ["text.png", "not an image"]),
        (["data.path=noise.png"], ["noise.png", "not an image"]),
        (["data.path=head.png"], ["head.png"]),
        (["data.path=array.npy"], ["array.npy", "not an image"]),
        (["data.path=eps.png"], ["eps.png", "not an image"]),
        (["ckpt_path=empty.png"], ["empty.png", "truncated"]),
        (["ckpt_path=noise.png"], ["noise.png", "truncated"]),
        (["ckpt_path=text.png"], ["text.png", "truncated"]),
        (["ckpt_path=photo.png"], ["photo.png"]),
        (["ckpt_path=zip.ckpt"], ["zip.ckpt"]),
        (["ckpt_path=number.ckpt"], ["number.ckpt", "not written by spectrain"]),
        (["ckpt_path=list.ckpt"], ["list.ckpt", "not written by spectrain"]),
        (["ckpt_path=no_config.ckpt"], ["no_config.ckpt", "not written by spectrain"]),
        (["ckpt_path=bad_config.ckpt"], ["bad_config.ckpt", "not written by spectrain"]),
        (["--config-dir=broken", "experiment=tabs"], ["tabs"]),
        (["--config-dir=broken", "experiment=binary"], ["experiment=binary", "UTF-8"]),
        (["--config-dir=broken", "experiment=list"], ["list"]),
        (["--config-dir=broken", "experiment=twice"], ["twice"]),
        (["--config-dir=broken", "experiment=nodefault"], ["optimizer=nothing"]),
        (["--config-dir=broken", "experiment=unresolved"], ["no.such.key"]),
    ],
    "pixels": [
        (["data.path=nan.tif"], ["nan.tif", "NaN or infinite"]),
        (["data.path=inf.tif"], ["inf.tif", "NaN or infinite"]),
        (["data.path=constant.tif"], ["constant.tif", "only the value"]),
        (["data.path=photo.png", "data.size=9999"], ["data.size=9999", "8192"]),
        (["data.path=photo.png", "data.size=[0,3]"], ["data.size"]),
        (["data.path=photo.png", "data.size=1", "data.holdout=true"], ["data.holdout"]),
        (["data.path=dot.png", "data.size=null"], ["spectrum.rank"]),
        (["data.size=1e3"], ["1000"]),
        (["data.batches=latice"], ["data.batches", "lattice"]),
        (["data.batches=lattice"], ["data.batches=lattice", "data.batch_size"]),
        (["data.batches=lattice", "data.batch_size=9", "data.holdout=true"], ["data.holdout=false"]),
        (["data.size=12x12"], ["data.size"]),
        (["data.size=[12,12,3]"], ["data.size"]),
    ],
    "contradictions": [
        (["spectrum.rank=65", "spectrum.subset_size=64"], ["spectrum.subset_size=64"]),
        (["data.size=6", "spectrum.rank=40"], ["spectrum.rank=40", "36"]),
        (["spectral_map=flatten", "spectral_map.rank=128"], ["spectral_map.rank=128", "spectrum.rank"]),
        (["spectral_map=bandpass", "spectral_map.hi=500"], ["spectral_map.hi=500"]),
        (["spectral_map=bandpass", "spectral_map.lo=64", "spectral_map.hi=8"], ["lo", "hi"]),
        (["optimizer.lr=auto"], ["optimizer.lr=auto"]),
        (["optimizer=sgd", "spectrum.metric=optimizer"], ["spectrum.metric=optimizer"]),
        (["optimizer=adam", "spectrum.metric=optimizer", "spectrum.refresh=drift"], ["spectrum.refresh=drift"]),
        (["optimizer=adam", "spectrum.metric=optimizer", "spectrum.extension=nystrom"], ["spectrum.extension"]),
        (["optimizer=lbfgs", "guard=true"], ["guard=false"]),
        (["optimizer=gauss_newton"], ["picture"]),
        (["optimizer=sgd", "optimizer.momentum=0"], ["Nesterov"]),
        (["preconditioner=batch", "spectral_map=auto"], ["spectral_map=auto"]),
        (["preconditioner=grid", "data.holdout=true"], ["data.holdout=false"]),
        (["preconditioner=auto", "preconditioner.candidates=[]"], ["preconditioner.candidates"]),
        (["model=fourier", "model.features=3"], ["model.features=3"]),
        (["experiment=pinn_poisson2d", "preconditioner=sample"], ["preconditioner=none"]),
        (["experiment=pinn_poisson2d", "optimizer=adam", "preconditioner=batch"], ["preconditioner=sample"]),
        (["experiment=pinn_poisson2d", "optimizer=sgd", "optimizer.lr=auto"], ["optimizer.lr=auto"]),
        (["experiment=pinn_poisson2d", "trainer=ddp", "trainer.accelerator=cpu"], ["trainer.devices=1"]),
        (["data=pde"], ["data.resample_every_n_steps"]),
        (["callbacks=pde"], ["callbacks.spectrum"]),
        (["trainer.accelerator=tpu"], ["trainer"]),
        (["trainer.accelerator=gpu"], ["trainer"]),
        (["trainer.devices=0"], ["trainer"]),
        (["trainer.precision=17"], ["32-true"]),
        (["trainer.strategy=fast"], ["trainer"]),
        (["optimizer=schedule_free", "schedule=constant", "optimizer.lr=auto"], ["optimizer.lr"]),
        (["data.holdout=true", "preconditioner=grid"], ["preconditioner=grid"]),
        (["seed=0,1"], ["-m"]),
        (["-m", "hydra.run.dir=a,b"], ["hydra.run.dir"]),
    ],
    "what a class refuses": [
        (["optimizer=adam", "optimizer.betas=[0.9]"], ["optimizer.betas"]),
        (["optimizer=adam", "optimizer.betas=[2,3]"], ["optimizer", "beta"]),
        (["optimizer=adam", "optimizer.betas=0.9"], ["optimizer.betas"]),
        (["optimizer=adam", "optimizer.betas=[a,b]"], ["optimizer.betas"]),
        (["optimizer=soap", "optimizer.betas=[0.9,0.9,0.9]"], ["optimizer.betas"]),
        (["optimizer=lion", "optimizer.betas=null"], ["optimizer.betas"]),
        (["optimizer=adam", "+optimizer.foo=1"], ["optimizer", "foo"]),
        (["+model.foo=1"], ["model", "foo"]),
        (["+data.foo=1"], ["data", "foo"]),
        (["+trainer.foo=1"], ["trainer", "foo"]),
        (["+schedule.foo=1"], ["schedule", "foo"]),
        (["+preconditioner.foo=1"], ["preconditioner", "foo"]),
        (["+callbacks.foo=1"], ["callbacks.foo"]),
        (["+callbacks.checkpoint.foo=1"], ["checkpoint", "foo"]),
        (["callbacks.checkpoint.mode=up"], ["checkpoint", "mode"]),
        (["callbacks.checkpoint.mode=min"], ["callbacks.checkpoint.mode=min", "monitor=auto"]),
        (["callbacks.checkpoint.monitor=val/mse"], ["checkpoint", "mode", "min"]),
        (["callbacks.checkpoint.monitor=val/mse", "callbacks.checkpoint.mode=up"], ["checkpoint", "mode"]),
        (["optimizer._partial_=false"], ["optimizer"]),
        (["schedule._partial_=false"], ["schedule"]),
        (["preconditioner.spectral_map=3"], ["spectral_map=3"]),
        (["preconditioner.outputs=some"], ["preconditioner.outputs='some'", "trace"]),
        (["spectral_map._target_=null"], ["spectral_map"]),
        (["optimizer._target_=torch.nn.Linear"], ["optimizer"]),
        (["model._target_=torch.nn.ReLU"], ["model"]),
        (["model._target_=torch.optim.Adam"], ["model"]),
        (["data._target_=torch.nn.Linear"], ["data"]),
        (["trainer._target_=torch.nn.Linear"], ["trainer"]),
        (["experiment=pinn_poisson2d", "data.equation=3"], ["data.equation"]),
        (["experiment=pinn_poisson2d", "data.equation.dim=0"], ["dim"]),
        (["experiment=pinn_poisson2d", "data.equation._target_=torch.nn.ReLU"], ["ReLU"]),
        (["experiment=pinn_poisson2d", "data.weights={nowhere:3}"], ["nowhere"]),
        (["experiment=pinn_poisson2d", "data.weights=3"], ["data.weights"]),
        (["experiment=pinn_poisson2d", "data.weights={boundary:abc}"], ["data.weights", "abc", "above 0"]),
        (["experiment=pinn_poisson2d", "data.weights={boundary:[1]}"], ["data.weights", "above 0"]),
        (["experiment=pinn_poisson2d", "data.weights={boundary:nan}"], ["boundary"]),
        (["experiment=pinn_poisson2d", "data.weights={boundary:-1}"], ["boundary"]),
    ],
    "hostile strings": [
        (["seed=$(touch hacked)"], ["seed"]),
        (["seed='; rm -rf / #'"], ["seed"]),
        (["data.path='../../../../../../etc/passwd'"], ["etc/passwd", "not an image"]),
        (["data.path='%s%s%n'"], ["%s%s%n"]),
        (["data.path='a\nb'"], ["a"]),
        ([f"data.path='{'x' * 5000}'"], ["data.path", "too long"]),
        (["data.path='\x00'"], ["data.path"]),
        (["data.path='\x1b[31mred'"], ["data.path"]),
        (["data.path='💥.png'"], ["💥.png"]),
        (["data.path='http://example.com/a.png'"], ["example.com"]),
        (["data.path='-'"], ["data.path"]),
        (["data.path='~nobody_here/x.png'"], ["~nobody_here/x.png"]),
        (["data.path='${seed'"], ["data.path"]),
        (["data.path='${no.such.key}'"], ["no.such.key"]),
        (["data.path='${oc.env:NO_SUCH_VARIABLE}'"], ["NO_SUCH_VARIABLE"]),
        (["data.path='${oc.create:x}'", "seed='${seed}'"], ["seed"]),
        (["seed=${seed}"], ["seed"]),
        (["seed=${data.seed}"], ["seed"]),
        (["model.width={{{{"], ["model.width"]),
        (["model.width=[1,[2,[3,[4"], ["model.width"]),
        (["model.width='9" + "9" * 400 + "'"], ["model.width"]),
        (["seed=99999999999999999999"], ["seed"]),
        (["trainer.max_steps=1e400"], ["trainer.max_steps"]),
        (["model..width=3"], ["model..width"]),
        (["model/width=3"], ["model/width"]),
        (["../model=mlp"], ["../model"]),
        (["model=../optimizer/adam"], ["model"]),
        (["experiment=../train"], ["experiment"]),
        (["optimizer._target_='torch.optim.Adam;import os'"], ["optimizer._target_"]),
        (["model._target_=__import__('os').system('x')"], ["model._target_"]),
        (["allow_targets=[os]", "model._target_=os.system"], ["model"]),
        (["allow_targets=['']"], ["allow_targets"]),
        (["allow_targets=['../x']"], ["allow_targets"]),
        (["paths.run_dir='a\x00b'"], ["paths.run_dir"]),
        ([f"paths.run_dir={'d' * 300}"], ["too long"]),
        (["paths.run_dir=/proc/nothing"], ["/proc/nothing"]),
        (["paths.run_dir=/dev/null"], ["/dev/null"]),
        (["paths.run_dir=full"], ["full", "not empty"]),
        (["paths.run_dir=photo.png"], ["photo.png", "file"]),
        (["paths.run_dir=photo.png/run"], ["photo.png"]),
        (["paths.output_dir=photo.png"], ["photo.png"]),
    ],
}


def make_files(folder: Path) -> None:
    """Everything that the words above name."""
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "photo.png")
    Image.fromarray(picture[:1, :1]).save(folder / "dot.png")
    formats = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    for kind in BROKEN:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, formats.get(kind, kind.upper()))
        (folder / f"cut.{kind}").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    for kind in BROKEN[:3]:
        (folder / f"empty.{kind}").touch()
    for name, value in (("nan", np.nan), ("inf", np.inf), ("constant", 7.0)):
        pixels = np.full((40, 40), value if name == "constant" else 0.5, np.float32)
        pixels[3, 4] = value
        Image.fromarray(pixels).save(folder / f"{name}.tif")
    (folder / "text.png").write_text("this is not a picture")
    (folder / "noise.png").write_bytes(picture.tobytes())
    (folder / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n")
    np.save(folder / "array.npy", picture)
    os.mkfifo(folder / "pipe.png")
    os.symlink("loop.png", folder / "loop.png")
    (folder / "folder").mkdir()
    for name in ("full", "killed"):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text("seed: 0\n")
    _make_checkpoints(folder)
    _make_configs(folder / "broken" / "experiment")


def _make_checkpoints(folder: Path) -> None:
    torch.save(3, folder / "number.ckpt")
    torch.save([1, 2], folder / "list.ckpt")
    torch.save({"state_dict": {}}, folder / "no_config.ckpt")
    torch.save({"spectrain_version": "0.1.0", "state_dict": {}, "config": "a: ["}, folder / "bad_config.ckpt")
    (folder / "zip.ckpt").write_bytes(b"PK\x03\x04" + b"\x00" * 100)


def _make_configs(folder: Path) -> None:
    folder.mkdir(parents=True)
    head = "# @package _global_\n"
    (folder / "tabs.yaml").write_text(head + "model:\n\twidth: 3\n")
    (folder / "binary.yaml").write_bytes(b"\x00\xff\xfe\x80")
    (folder / "list.yaml").write_text(head + "- 1\n- 2\n")
    (folder / "twice.yaml").write_text(head + "seed: 1\nseed: 2\n")
    (folder / "nodefault.yaml").write_text(head + "defaults:\n  - override /optimizer: nothing\n")
    (folder / "unresolved.yaml").write_text(head + "seed: ${no.such.key}\n")
