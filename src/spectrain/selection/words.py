"""The reason for a suggestion, in words that follow from its numbers.

Letters: n points, C outputs, k modes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.selection.candidate import Candidate
from spectrain.spectral_maps import SpectralMap, flatten, identity
from spectrain.spectrum import Spectrum
from spectrain.spectrum.measures import energy_per_mode


def reason(
    spectrum: Spectrum,
    y: Float[Tensor, "n C"],
    ranking: Sequence[Candidate],
    plain: Candidate,
    noise: float,
    diverging: Sequence[SpectralMap] = (),
) -> str:
    """Where the target's energy sits, how much noise there is, and what each choice is predicted to give."""
    first, last = energy_range(spectrum, y)
    deviation = float((y - y.mean(0)).square().mean().sqrt())
    best = ranking[0]
    parts = [
        f"80 % of the target's energy sits in modes {first}-{last} of {spectrum.n}",
        f"noise (or detail out of reach) about {noise:.2g}, {noise / max(deviation, 1e-300):.0%} of its deviation",
    ]
    if isinstance(best.spectral_map, identity):
        parts.append(f"the kernel as it is does best, stopped after {_steps(best)}: {best.predicted_error:.3g}")
    else:
        parts.append(f"{best.spectral_map!r}: {best.predicted_error:.3g} after {_steps(best)}")
        parts.append(f"the kernel as it is: {plain.predicted_error:.3g} after {_steps(plain)}")
    parts += _against_flattening(best, ranking)
    if diverging:
        parts.append(f"left out, since S would not fit until its refresh: {', '.join(repr(g) for g in diverging)}")
    return "; ".join(parts) + "."


def energy_range(spectrum: Spectrum, y: Float[Tensor, "n C"], share: float = 0.8) -> tuple[int, int]:
    """The modes (counted from 1) between which the middle `share` of the centred target's energy sits."""
    energy = energy_per_mode(spectrum, y - y.mean(0))
    cumulative = energy.cumsum(0) / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)
    margin = (1 - share) / 2
    first, last = torch.searchsorted(cumulative, cumulative.new_tensor([margin, 1 - margin])).tolist()
    return first + 1, min(last + 1, spectrum.rank)


def _against_flattening(best: Candidate, ranking: Sequence[Candidate]) -> list[str]:
    """What flattening at least as many modes would cost at its own best number of steps, if it costs anything."""
    chosen = _rank(best)
    stronger = [c for c in ranking if isinstance(c.spectral_map, flatten) and _rank(c) >= max(chosen, 1)]
    if not stronger:
        return []
    widest = max(_rank(c) for c in stronger)
    flat = next(c for c in stronger if _rank(c) == widest)
    loss = flat.predicted_error / max(best.predicted_error, 1e-300) - 1
    if loss < 0.01 or flat.spectral_map == best.spectral_map:
        return []
    return [f"flattening {widest} modes would give {loss:.0%} more error: it learns the noise as soon as the signal"]


def _steps(candidate: Candidate) -> str:
    return f"{candidate.steps} step" + "s" * (candidate.steps > 1)


def _rank(candidate: Candidate) -> int:
    return getattr(candidate.spectral_map, "rank", 0) or 0
