"""Which of several processes this is."""

import os


def rank() -> int:
    """As the launcher says, before torch.distributed is there. Lightning's own counts within a node: 0 comes once."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if key in os.environ:
            within = int(os.environ[key])
            return within or int(key == "LOCAL_RANK" and os.environ.get("NODE_RANK", "0") != "0")
    return 0


def is_first() -> bool:
    """Whether this process is rank 0, which writes and speaks for all."""
    return rank() == 0
