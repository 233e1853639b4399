"""What the measures of every kind of data have in common.

Shapes: N evaluation points, C outputs, b points of a chunk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, cat
from torchmetrics import Metric


@dataclass(frozen=True)
class Quality:
    """The number that runs on a kind of data are judged by: a metric's name, how it is written, its direction."""

    name: str
    label: str
    unit: str = ""
    higher: bool = True
    form: str = ".2f"

    def text(self, value: float, sign: str = "") -> str:
        """33.62 dB."""
        return f"{value:{sign}{self.form}} {self.unit}".rstrip()

    def gain(self, value: float, other: float) -> float:
        """By how much `value` is better than `other`; negative where it is worse."""
        return value - other if self.higher else other - value

    @property
    def gain_name(self) -> str:
        """The gain's key in a summary: gain_db, gain_accuracy."""
        return f"gain_{self.unit.lower() or self.name}"

    @property
    def axis(self) -> str:
        """PSNR (dB)."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


class FieldMetrics(Metric):  # type: ignore[misc]
    """Collects the predictions at the N evaluation points of a data module, in order, and measures them.

    A kind of data is a subclass: it names its `quality` and the `directions` of the metrics that have a best value
    (True: higher is better), and computes them from `predictions`. `target` [..., C]: values at the evaluation points;
    `extra`: points that are predicted after them, and not measured. Every rank is expected to predict all points, so
    nothing is summed over ranks.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    quality: ClassVar[Quality]
    directions: ClassVar[Mapping[str, bool]]
    chunks: list[Tensor]
    target: Tensor

    def __init__(self, target: Float[Tensor, "*N C"], extra: int = 0) -> None:
        super().__init__(sync_on_compute=False, dist_sync_on_step=False)
        self.extra = extra
        self.register_buffer("target", target.detach().clone().contiguous(), persistent=False)
        self.add_state("chunks", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Float[Tensor, "b C"]) -> None:
        """Append the predictions of the next b points."""
        self.chunks.append(prediction.to(self.target))

    def predictions(self) -> Float[Tensor, "N+extra C"]:
        """Return the predictions so far; ValueError unless they are exactly those of all points."""
        outputs = self.target.shape[-1]
        values = cat(self.chunks) if self.chunks else self.target.new_zeros(0, outputs)
        points = self.target.numel() // outputs
        if values.shape != (points + self.extra, outputs):
            raise ValueError(f"predictions {list(values.shape)} do not fill the target {list(self.target.shape)}")
        return values

    def measured(self) -> Float[Tensor, "*N C"]:
        """Return the predictions at the points that are measured, in the target's shape."""
        values = self.predictions()
        return values[: len(values) - self.extra].reshape(self.target.shape)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of all points, each a scalar tensor."""
        raise NotImplementedError

    def lines(self, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What a person is shown of a run's summary: (word, text)."""
        q = self.quality
        return [(q.label, f"{q.text(summary[q.name])} (best {q.text(summary[f'best_{q.name}'])})")]

    def sentence(self, values: Mapping[str, float]) -> str:
        """The metrics that matter, in a few words."""
        return f"{self.quality.label} {self.quality.text(values[self.quality.name])}"
