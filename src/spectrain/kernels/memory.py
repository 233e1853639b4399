"""Memory: how much a person allows, how much there is."""

import re
from pathlib import Path

import torch

from spectrain.errors import InputError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SHARE = 0.5
_FALLBACK = 2 * 2**30


def budget_bytes(budget: int | float | str | None, device: torch.device) -> int:
    """The budget in bytes: a number, a text such as "2GiB" or "500 MB", or half of what is free on the device."""
    if budget is None:
        return int(_SHARE * free_bytes(device))
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]i?)?b?\s*", budget.lower())
        budget = float(match[1]) * _UNITS[match[2] or ""] if match else -1.0
    if isinstance(budget, bool) or not budget > 0:
        raise InputError("memory_budget must be a positive number of bytes or a text such as '2GiB' or '500MB'.")
    return int(budget)


def free_bytes(device: torch.device) -> int:
    """Memory that can be had now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    return min(_available(), _control_group())


def _available() -> int:
    try:
        match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else _FALLBACK


def _control_group() -> int:
    """What a container's limit leaves; very large where there is no limit."""
    root = Path("/sys/fs/cgroup")
    try:
        limit, used = (root / "memory.max").read_text().strip(), (root / "memory.current").read_text().strip()
        return max(0, int(limit) - int(used)) if limit != "max" else 2**62
    except (OSError, ValueError):
        return 2**62
