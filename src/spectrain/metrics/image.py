"""How well an image is reproduced.

Shapes: H rows, W columns, C channels, b points of a chunk.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad
from torchmetrics import Metric
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

DATA_RANGE = 2.0  # values lie in [-1, 1]
SSIM_WINDOW = 11


class ImageMetrics(Metric):  # type: ignore[misc]
    """PSNR, SSIM and MSE of a reconstruction that arrives in chunks, in C order of its pixels.

    mse = mean (f - y)^2 over pixels and channels,   psnr = 10 log10(2^2 / mse) dB (inf when exact),
    ssim: Wang et al. 2004, Gaussian window of 11 pixels, sigma 1.5; an image with a side below 11 pixels is first
    extended by its edge values. Predictions are clamped to [-1, 1]: nobody would show other values.

    `target` [H, W, C] in [-1, 1]; `heldout_mask` [H, W], True for the pixels of `psnr_heldout`.
    `update(prediction [b, C])` until H W pixels are there; `compute()` -> {"mse", "psnr", "ssim"[, "psnr_heldout"]}.
    Every rank is expected to predict the whole image, so nothing is summed over ranks.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    chunks: list[Tensor]
    target: Tensor
    heldout_mask: Tensor | None

    def __init__(self, target: Float[Tensor, "H W C"], heldout_mask: Bool[Tensor, "H W"] | None = None) -> None:
        super().__init__(sync_on_compute=False, dist_sync_on_step=False)
        self.register_buffer("target", target.detach().clone(memory_format=torch.contiguous_format), persistent=False)
        self.register_buffer("heldout_mask", heldout_mask, persistent=False)
        self.add_state("chunks", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Float[Tensor, "b C"]) -> None:
        """Append the predictions of the next b pixels."""
        self.chunks.append(prediction.to(self.target).clamp(-1, 1))

    def reconstruction(self) -> Float[Tensor, "H W C"]:
        """Return the predictions so far as an image; ValueError unless they are exactly the H W pixels."""
        values = torch.cat(self.chunks) if self.chunks else self.target.new_zeros(0, self.target.shape[2])
        if values.shape != self.target.flatten(0, 1).shape:
            raise ValueError(f"predictions {list(values.shape)} do not fill the image {list(self.target.shape)}")
        return values.reshape(self.target.shape)

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
        return result


def _psnr(image: Tensor, target: Tensor) -> Tensor:
    value: Tensor = peak_signal_noise_ratio(image, target, data_range=DATA_RANGE)
    return value


def _ssim(image: Float[Tensor, "H W C"], target: Float[Tensor, "H W C"]) -> Tensor:
    pair = torch.stack((image, target)).permute(0, 3, 1, 2)
    lacking = [max(0, SSIM_WINDOW - side) for side in (image.shape[1], image.shape[0])]
    if any(lacking):
        left, top = (k // 2 for k in lacking)
        pair = pad(pair, (left, lacking[0] - left, top, lacking[1] - top), mode="replicate")
    value: Tensor = structural_similarity_index_measure(pair[:1], pair[1:], data_range=DATA_RANGE)
    return value
