"""The metrics against their formulas, for whole and tiny images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from spectrain.metrics import ImageMetrics


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def measure(prediction, target, mask=None, chunk=1000):
    metrics = ImageMetrics(target, mask)
    for part in prediction.flatten(0, 1).split(chunk):
        metrics.update(part)
    return metrics.compute()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.integers(1, 50))
def test_any_size_in_any_chunks_gives_the_formulas(height, width, channels, chunk):
    target, prediction = image(height, width, channels), image(height, width, channels, seed=1)
    result = measure(prediction, target, chunk=chunk)
    mse = (prediction.double() - target.double()).square().mean().item()
    assert result["mse"].item() == pytest.approx(mse, rel=1e-5)
    assert result["psnr"].item() == pytest.approx(10 * math.log10(4 / mse), abs=1e-4)
    assert -1 <= result["ssim"].item() <= 1
    assert set(result) == {"mse", "psnr", "ssim"}
    assert all(value.shape == () for value in result.values())


def test_predictions_are_clamped():
    target = torch.ones(12, 12, 1)
    assert measure(target * 7, target)["psnr"] == math.inf
    assert measure(-target * 7, target)["psnr"].item() == pytest.approx(0, abs=1e-6)


def test_an_exact_image_is_infinite_db_and_ssim_one():
    target = image(16, 16, 3)
    result = measure(target, target)
    assert result["psnr"] == math.inf
    assert result["ssim"].item() == pytest.approx(1, abs=1e-5)


def test_psnr_keeps_its_digits_far_up():
    target = image(64, 64, 1)
    noise = 1e-6 * torch.sign(image(64, 64, 1, seed=3))
    prediction = (target * 0.9).double() + noise.double()
    metrics = ImageMetrics(target * 0.9)
    metrics.update(prediction.float().flatten(0, 1))
    actual = (prediction.float().double() - (target * 0.9).double()).square().mean().item()
    assert metrics.compute()["psnr"].item() == pytest.approx(10 * math.log10(4 / actual), abs=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_agrees_with_scikit_image(channels):
    smooth = torch.nn.functional.interpolate(image(1, channels, 8, 8), size=(64, 64), mode="bicubic")[0]
    target = smooth.permute(1, 2, 0).clamp(-1, 1)
    prediction = (target + 0.1 * image(64, 64, channels, seed=2)).clamp(-1, 1)
    reference = structural_similarity(
        target.double().numpy(),
        prediction.double().numpy(),
        data_range=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
    )
    # scikit-image leaves out a border of five pixels
    assert measure(prediction, target)["ssim"].item() == pytest.approx(reference, abs=0.02)


def test_heldout_pixels_are_measured_alone():
    target = image(8, 8, 3) * 0.5
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[::2] = True
    prediction = target + torch.where(mask, 0.2, 0.02)[:, :, None]
    result = measure(prediction, target, mask)
    assert result["psnr_heldout"].item() == pytest.approx(20, abs=1e-3)
    assert result["psnr"].item() == pytest.approx(10 * math.log10(4 / ((0.04 + 0.0004) / 2)), abs=1e-3)


def test_too_few_or_too_many_pixels_are_refused():
    metrics = ImageMetrics(image(4, 4, 1))
    for chunk in (0, 15, 2):
        metrics.update(torch.zeros(chunk, 1))
        with pytest.raises(ValueError, match="do not fill the target"):
            metrics.compute()


def test_reset_starts_a_new_image_and_nothing_enters_a_checkpoint():
    target = image(12, 12, 1)
    metrics = ImageMetrics(target, torch.ones(12, 12, dtype=torch.bool))
    metrics.update(torch.zeros(144, 1, requires_grad=True))
    first = metrics.compute()["psnr"]
    metrics.reset()
    metrics.update(target.flatten(0, 1))
    assert metrics.compute()["psnr"] > first
    assert metrics.state_dict() == {}
    np.testing.assert_array_equal(metrics.reconstruction(), target)


def test_half_precision_predictions():
    target = image(12, 12, 1)
    metrics = ImageMetrics(target)
    metrics.update(target.flatten(0, 1).bfloat16())
    assert 40 < metrics.compute()["psnr"] < 80


def test_nan_stays_visible():
    target = image(12, 12, 1)
    assert measure(torch.full_like(target, math.nan), target)["psnr"].isnan()
