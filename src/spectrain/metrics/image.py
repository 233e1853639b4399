"""How well an image, or each frame of a film, is reproduced.

Shapes: T frames of a film, H rows, W columns, C channels, b points of a chunk.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from spectrain.metrics.base import FieldMetrics, Quality

DATA_RANGE = 2.0  # values lie in [-1, 1]
SSIM_WINDOW = 11


class ImageMetrics(FieldMetrics):
    """PSNR, SSIM and MSE of a reconstruction, [H, W, C] or [T, H, W, C], that arrives in chunks, in C order of pixels.

    mse = mean (f - y)^2 over pixels and channels,   psnr = 10 log10(2^2 / mse) dB (inf when exact),
    ssim: Wang et al. 2004, Gaussian window of 11 pixels, sigma 1.5; an image with a side below 11 pixels is first
    extended by its edge values; of a film the mean over its frames. Predictions are clamped to [-1, 1]: nobody would
    show other values.

    `target` [(T,) H, W, C] in [-1, 1]; `heldout_mask` [(T,) H, W], True for the pixels of `psnr_heldout`; `noisy`
    [H, W, C], the picture that is trained on where it is not the target, for `psnr_noisy`.
    `update(prediction [b, C])` until all pixels are there; `compute()` -> {"mse", "psnr", "ssim"[, "psnr_heldout"]
    [, "psnr_noisy"]}.
    """

    quality = Quality("psnr", "PSNR", "dB")
    directions: ClassVar[Mapping[str, bool]] = {"psnr": True, "ssim": True, "mse": False}
    heldout_mask: Tensor | None
    noisy: Tensor | None

    def __init__(
        self,
        target: Float[Tensor, "*T H W C"],
        heldout_mask: Bool[Tensor, "*T H W"] | None = None,
        noisy: Float[Tensor, "H W C"] | None = None,
        extra: int = 0,
    ) -> None:
        super().__init__(target, extra)
        self.register_buffer("heldout_mask", heldout_mask, persistent=False)
        self.register_buffer("noisy", noisy, persistent=False)

    def update(self, prediction: Float[Tensor, "b C"]) -> None:
        """Append the predictions of the next b pixels."""
        super().update(prediction.clamp(-1, 1))

    def reconstruction(self) -> Float[Tensor, "*T H W C"]:
        """Return the predictions so far as an image; ValueError unless they are exactly the H W pixels."""
        return self.measured()

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of the whole image, each a scalar tensor."""
        image = self.reconstruction()
        result = {
            "mse": mean_squared_error(image, self.target),
            "psnr": _psnr(image, self.target),
            "ssim": _ssim(image, self.target),
        }
        if self.heldout_mask is not None:
            result["psnr_heldout"] = _psnr(image[self.heldout_mask], self.target[self.heldout_mask])
        if self.noisy is not None:
            result["psnr_noisy"] = _psnr(image, self.noisy)
        return result

    def lines(self, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
        """PSNR and SSIM."""
        heldout = f", {summary['psnr_heldout']:.2f} dB held out" if "psnr_heldout" in summary else ""
        noisy = f", {summary['psnr_noisy']:.2f} dB against the noisy one" if "psnr_noisy" in summary else ""
        (label, text), *_ = super().lines(summary)
        return [(label, text + heldout + noisy), ("SSIM", f"{summary['ssim']:.4f}")]

    def sentence(self, values: Mapping[str, float]) -> str:
        """PSNR and SSIM."""
        return f"{super().sentence(values)}, SSIM {values['ssim']:.4f}"


def _psnr(image: Tensor, target: Tensor) -> Tensor:
    value: Tensor = peak_signal_noise_ratio(image, target, data_range=DATA_RANGE)
    return value


def _ssim(image: Float[Tensor, "*T H W C"], target: Float[Tensor, "*T H W C"]) -> Tensor:
    height, width, channels = image.shape[-3:]
    pair = torch.cat([film.reshape(-1, height, width, channels) for film in (image, target)]).permute(0, 3, 1, 2)
    lacking = [max(0, SSIM_WINDOW - side) for side in (width, height)]
    if any(lacking):
        left, top = (k // 2 for k in lacking)
        pair = pad(pair, (left, lacking[0] - left, top, lacking[1] - top), mode="replicate")
    value: Tensor = structural_similarity_index_measure(*pair.chunk(2), data_range=DATA_RANGE)
    return value
