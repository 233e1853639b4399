"""Training, with Lightning's ways of ending translated into this program's."""

import signal
import sys
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
    SIGTERMException,
)

from spectrain.errors import InputError
from spectrain.lightning import GracefulInterrupt


def end_by_signal(number: int) -> NoReturn:
    """End the program as the shell reports it: 130 after Ctrl-C, 143 after SIGTERM, 138 after SIGUSR1."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


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
        end_by_signal(signal.SIGTERM)  # before training began; Lightning's own exit code would be 0
    except SystemExit as end:  # Lightning's answer to a second Ctrl-C
        raise KeyboardInterrupt from end
    finally:
        interrupt.give_back()
