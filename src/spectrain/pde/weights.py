"""Weights of an equation's conditions from the traces of their kernels."""

from collections.abc import Mapping

from spectrain.errors import InputError
from spectrain.pde.problem import Problem
from spectrain.pde.residuals import Points


def weights_by_trace(problem: Problem, points: Mapping[str, Points]) -> dict[str, float]:
    """``w_i = sum_j trace(K_j) / trace(K_i)``, K_i the kernel of condition i's mean square at weight 1.

    Every condition then has the same part in the trace of K, and in the damping. Wang, Yu and Perdikaris 2022 (arXiv
    2007.14527).

    Raises:
        InputError: a condition's residual does not depend on the network.
    """
    traces = {name: trace / problem.weights[name] for name, trace in problem.residuals(points).traces().items()}
    still = [name for name, trace in traces.items() if not trace > 0]
    if still:
        raise InputError(
            f"{problem.equation.name}: the residual of {still[0]} does not change with the network's parameters, and "
            "has no weight by kernel trace; give weights as numbers."
        )
    return {name: sum(traces.values()) / trace for name, trace in traces.items()}
