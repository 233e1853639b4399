"""The files that the words of `bad_inputs` name."""

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

BROKEN = ("png", "jpg", "tif", "webp", "gif", "bmp", "ppm", "jp2")


def make_files(folder: Path) -> None:
    """Pictures, checkpoints and configurations, broken in most ways that there are."""
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
