"""Equal time: how many steps of a method fill a budget of CPU seconds, from what it took for fewer."""


def steps_to_fill(seconds: float, short: tuple[int, float], long: tuple[int, float]) -> int:
    """The steps for which ``start + cost * steps = seconds``, at least 1.

    `short` and `long` are steps and the CPU seconds they took, in one run or in two; the quotient of their differences
    is the cost per step, of which no less than a fifth of the longer one's mean is believed: short runs on a busy
    machine scatter.
    """
    (m, first), (n, second) = short, long
    cost = max((second - first) / (n - m), 0.2 * second / n)
    start = max(0.0, first - cost * m)
    return max(1, round((seconds - start) / cost))
