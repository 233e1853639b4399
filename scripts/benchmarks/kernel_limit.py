"""How fast the empirical NTK of the library's own networks approaches its closed-form limit: about 1 / sqrt(width).

python scripts/benchmarks/kernel_limit.py            # prints the errors and draws docs/kernel_limit.svg
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch

from spectrain.kernels import empirical_ntk, infinite_width_ntk
from spectrain.models.networks import mlp

WIDTHS = (32, 64, 128, 256, 512, 1024)
SEEDS = 60


def errors(activation: str, x: torch.Tensor) -> list[float]:
    """Root mean square over seeds of |K_width - K_limit| / |K_limit|."""
    arguments = {"weight_variance": 2.0, "output_weight_variance": 1.0, "bias_variance": 0.09}
    limit = infinite_width_ntk(x, depth=2, activation=activation, **arguments)
    found = []
    for width in WIDTHS:
        squares = []
        for seed in range(SEEDS):
            torch.manual_seed(1000 * width + seed)
            network = mlp(3, 1, width=width, depth=2, activation=activation, bias_scale=0.3).double()
            squares.append(float((empirical_ntk(network, x) - limit).norm() / limit.norm()) ** 2)
        found.append((sum(squares) / SEEDS) ** 0.5)
    return found


def main() -> None:
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plt.rcParams["svg.fonttype"] = "none"
    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    for activation, marker in (("relu", "o"), ("gelu", "s")):
        found = errors(activation, x)
        print(activation, dict(zip(WIDTHS, (round(error, 4) for error in found), strict=True)))
        axes.loglog(WIDTHS, found, marker=marker, label=activation)
    axes.loglog(WIDTHS, [3 / width**0.5 for width in WIDTHS], "k:", label="3 / sqrt(width)")
    axes.set(xlabel="width", ylabel="relative distance to the limit", title="Empirical NTK, 2 hidden layers, 60 seeds")
    axes.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(Path(__file__).parents[2] / "docs" / "kernel_limit.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
