"""The random numbers of a run, in its checkpoint: a resumed run draws what an uninterrupted one would."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class RandomState(pl.Callback):
    """Saves and restores the generators of Python, NumPy and PyTorch, as tensors and primitives."""

    def state_dict(self) -> dict[str, Any]:
        """Loads under ``weights_only=True``."""
        version, internal, gauss = random.getstate()
        # NumPy's and Python's global generators too: whatever the user's own code draws from.
        state: Any = np.random.get_state()
        name, keys, position, has_gauss, cached = state
        return {
            "python": [version, list(internal), gauss],
            "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: what is built in between draws numbers of its own."""
        self._loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore what the checkpoint held."""
        loaded: dict[str, Any] | None = getattr(self, "_loaded", None)
        if loaded is None:
            return
        version, internal, gauss = loaded["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, position, has_gauss, cached = loaded["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        torch.set_rng_state(loaded["torch"].cpu())
        if loaded["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([state.cpu() for state in loaded["cuda"]])
