"""Equal time: how many steps of a method fill a budget of CPU seconds, from two short runs of it."""


def steps_to_fill(seconds: float, few: int, first: float, second: float) -> int:
    """The steps for which ``start + cost * steps = seconds``, at least 1.

    `first` and `second` are the CPU seconds of runs of `few` and of twice as many steps; their difference is the cost
    per step, of which no less than a fifth of the second run's mean is believed: short runs on a busy machine scatter.
    """
    cost = max((second - first) / few, 0.2 * second / (2 * few))
    start = max(0.0, first - cost * few)
    return max(1, round((seconds - start) / cost))
