"""A signal that arrives while the ranks agree about earlier ones."""

import signal
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from spectrain.lightning import GracefulInterrupt


def test_a_signal_between_two_ranks_agreements_is_not_lost() -> None:
    interrupt, said = GracefulInterrupt(), []

    def reduce(number: Tensor, reduce_op: str) -> Tensor:
        said.append(int(number))
        if len(said) == 1:
            signal.raise_signal(signal.SIGTERM)
        return number

    trainer: Any = SimpleNamespace(
        world_size=2,
        strategy=SimpleNamespace(root_device="cpu", reduce=reduce),
        accumulate_grad_batches=1,
        should_stop=False,
    )
    module: Any = None
    interrupt.on_fit_start(trainer, module)
    try:
        interrupt.on_train_batch_end(trainer, module, None, None, 0)
        # The other rank does not know of it: both must take the next step.
        assert not interrupt.interrupted
        assert not trainer.should_stop
        interrupt.on_train_batch_end(trainer, module, None, None, 1)
        assert (interrupt.interrupted, trainer.should_stop) == (signal.SIGTERM, True)
    finally:
        interrupt.give_back()
    assert said == [0, signal.SIGTERM]
