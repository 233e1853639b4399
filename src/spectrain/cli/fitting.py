"""Training, with Lightning's ways of ending translated into this program's."""

import signal
import sys
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
    SIGTERMException,
)

from spectrain.cli.run_folder import foreign_version
from spectrain.errors import InputError
from spectrain.lightning import GracefulInterrupt, LostRankError, watching

# What a checkpoint with other contents makes the restoring of it raise.
NOT_RESTORED = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)


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
        InputError: Lightning cannot work with these settings, or the checkpoint does not hold what this version reads.
        LostRankError: another process has died or hangs.
        KeyboardInterrupt: a second Ctrl-C.
    """
    try:
        with watching(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except MisconfigurationException as error:  # such as a checkpoint's monitor that nobody logs
        raise InputError(str(error)) from error
    except LostRankError:
        raise
    except NOT_RESTORED as error:
        if ckpt_path is None or interrupt.begun or isinstance(error, InputError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"ckpt_path={ckpt_path} cannot be resumed: {foreign_version(ckpt_path)} ({reason})") from error
    except SIGTERMException:
        end_by_signal(signal.SIGTERM)  # before training began; Lightning's own exit code would be 0
    except SystemExit as end:  # Lightning's answer to a second Ctrl-C
        raise KeyboardInterrupt from end
    finally:
        interrupt.give_back()
