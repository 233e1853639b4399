"""Training, with Lightning's ways of ending translated into this program's."""

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
    SIGTERMException,
)

from spectrain.errors import InputError
from spectrain.lightning import GracefulInterrupt

TERMINATED = 143  # exit code after SIGTERM, as shells report it


def fit_guarded(
    trainer: pl.Trainer, module: pl.LightningModule, data: Any, ckpt_path: str | None, interrupt: GracefulInterrupt
) -> None:
    """``trainer.fit``.

    Raises:
        InputError: Lightning cannot work with these settings.
        KeyboardInterrupt: a second Ctrl-C.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except MisconfigurationException as error:  # such as a checkpoint's monitor that nobody logs
        raise InputError(str(error)) from error
    except SIGTERMException:
        sys.exit(TERMINATED)  # Lightning's own exit code would be 0
    except SystemExit as end:  # Lightning's answer to a second Ctrl-C
        raise KeyboardInterrupt from end
    finally:
        interrupt.give_back()
