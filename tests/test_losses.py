"""The photometric loss: by hand, by law, and against a plain float64 convolution."""

from __future__ import annotations

import math

import numba
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from renderers import SceneError
from scenegen.splatting.losses import photometric_loss, psnr, ssim

SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def plain_loss(image: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Wang et al. 2004, eq. 13, as written there, by conv2d in float64."""
    x, y = image.double(), target.double()
    weights = torch.ones(x.shape[:2]) if weights is None else weights
    shares = weights.double() / weights.double().sum()
    mask = (weights > 0).double()
    bell = torch.exp(-0.5 * (torch.arange(-5, 6).double() / 1.5) ** 2)
    window = torch.outer(bell, bell)[None, None] / bell.sum() ** 2

    def mean(planes: Tensor) -> Tensor:  # (h, w, 3)
        masked = torch.where(mask[..., None] > 0, planes, 0.0).permute(2, 0, 1)[:, None]
        mass = torch.nn.functional.conv2d(mask[None, None], window, padding=5)
        total = torch.nn.functional.conv2d(masked, window, padding=5)
        return (total / torch.where(mass > 0, mass, 1.0))[:, 0].permute(1, 2, 0)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    ssim = (2 * mx * my + SSIM_C1) * (2 * cov + SSIM_C2)
    ssim = ssim / ((mx**2 + my**2 + SSIM_C1) * (vx + vy + SSIM_C2))
    per_pixel = (0.8 * (x - y).abs() + 0.2 * (1 - ssim)).mean(-1)
    return (torch.where(mask > 0, per_pixel, 0.0) * shares).sum()


def pair(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth picture and one that resembles it."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4 + 1, width // 4 + 1, generator=rng)
    target = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    target = target[0].permute(1, 2, 0).contiguous()
    noise = 0.05 * torch.randn(height, width, 3, generator=rng)
    return (0.9 * target + noise).clamp(0, 1), target


def holes(height: int, width: int, seed: int = 0) -> Tensor:
    """Uneven weights, many of them zero, never all."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.rand(height, width, generator=rng)
    weights *= torch.rand(height, width, generator=rng) < 0.6
    weights[height // 2, width // 2] = 0.5
    return weights


def test_two_constant_pictures_by_hand() -> None:
    """0.5 against 0.7 everywhere: nothing varies, so only the luminance term is below 1.

    L1 = 0.2;  SSIM = (2 * 0.5 * 0.7 + 1e-4) / (0.25 + 0.49 + 1e-4) = 0.7001 / 0.7401
    loss = 0.8 * 0.2 + 0.2 * (1 - 0.945953) = 0.170809
    """
    image, target = torch.full((20, 31, 3), 0.5), torch.full((20, 31, 3), 0.7)
    expected = 0.8 * 0.2 + 0.2 * (1 - 0.7001 / 0.7401)
    assert photometric_loss(image, target).item() == pytest.approx(expected, rel=1e-5)
    assert photometric_loss(target, image).item() == pytest.approx(expected, rel=1e-5)


def test_one_pixel_by_hand() -> None:
    """A window of one pixel has no variance: black against white is 0.8 + 0.2 (1 - C1/(1 + C1))."""
    black, white = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    expected = 0.8 + 0.2 * (1 - 1e-4 / 1.0001)
    assert photometric_loss(black, white).item() == pytest.approx(expected, rel=1e-6)


def test_equal_pictures_differ_by_exactly_nothing() -> None:
    image = pair(37, 53)[0].requires_grad_()
    loss = photometric_loss(image, image.detach().clone())
    loss.backward()
    assert loss.item() == 0.0
    assert image.grad is not None and not image.grad.any()


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99), cut=st.booleans()
)
def test_value_and_gradient_are_those_of_the_formula(
    height: int, width: int, seed: int, cut: bool
) -> None:
    image, target = pair(height, width, seed)
    weights = holes(height, width, seed) if cut else None
    fast, plain = image.clone().requires_grad_(), image.double().requires_grad_()
    loss, expected = photometric_loss(fast, target, weights), plain_loss(plain, target, weights)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert fast.grad is not None and plain.grad is not None
    assert (fast.grad - plain.grad).norm() <= 1e-5 * plain.grad.norm()


def test_the_gradient_is_that_of_finite_differences() -> None:
    image, target = pair(15, 18, seed=4)
    image = image.requires_grad_()
    photometric_loss(image, target).backward()
    assert image.grad is not None
    rng = torch.Generator().manual_seed(1)
    for _ in range(5):
        direction = torch.randn(15, 18, 3, generator=rng)
        ends = (plain_loss(image.detach().double() + s * 1e-6 * direction, target) for s in (1, -1))
        slope = (next(ends) - next(ends)) / 2e-6
        along = (image.grad.double() * direction).sum()
        assert along.item() == pytest.approx(slope.item(), rel=1e-3)


def test_pixels_without_weight_do_not_matter() -> None:
    image, target = pair(24, 30)
    weights = holes(24, 30)
    spoilt = image.clone()
    spoilt[weights == 0] = math.nan
    one, other = image.requires_grad_(), spoilt.requires_grad_()
    losses = [photometric_loss(x, target, weights) for x in (one, other)]
    assert losses[0].item() == losses[1].item()
    for loss in losses:
        loss.backward()
    assert one.grad is not None and other.grad is not None
    assert torch.equal(one.grad, other.grad) and not other.grad[weights == 0].any()
    assert psnr(one, target, weights) == psnr(other, target, weights)


def test_cropping_is_the_same_as_weighing_with_zero() -> None:
    image, target = pair(24, 30)
    weights = torch.zeros(24, 30)
    weights[3:20, 7:29] = 2.5
    inside = photometric_loss(image[3:20, 7:29], target[3:20, 7:29])
    assert photometric_loss(image, target, weights).item() == pytest.approx(inside.item(), rel=1e-6)


def test_channels_and_axes_are_alike() -> None:
    image, target = pair(22, 35)
    loss = photometric_loss(image, target).item()
    for change in (lambda x: x.flip(-1), lambda x: x.transpose(0, 1), lambda x: x.flip(0, 1)):
        assert photometric_loss(change(image), change(target)).item() == pytest.approx(loss, 1e-5)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    image, target = pair(70, 90)
    results = []
    most = numba.get_num_threads()
    try:
        for threads in {1, most}:
            numba.set_num_threads(threads)
            pixels = image.clone().requires_grad_()
            loss = photometric_loss(pixels, target)
            loss.backward()
            results.append((loss.item(), pixels.grad))
    finally:
        numba.set_num_threads(most)
    assert results[0][0] == results[-1][0]
    assert torch.equal(results[0][1], results[-1][1])


def test_scaled_losses_and_float64_images() -> None:
    image, target = pair(12, 13)
    single, double = image.clone().requires_grad_(), image.double().requires_grad_()
    photometric_loss(single, target).backward()
    (3 * photometric_loss(double, target.double())).backward()
    assert single.grad is not None and double.grad is not None
    assert double.grad.dtype == torch.float64
    torch.testing.assert_close(double.grad.float(), 3 * single.grad)
    with torch.no_grad():
        assert not photometric_loss(single, target).requires_grad


def test_psnr_by_hand() -> None:
    """Off by 0.1 everywhere: 20 dB. Off by 0.1 on a quarter of the weight: 10 log10(4) more."""
    image, target = torch.full((4, 4, 3), 0.5), torch.full((4, 4, 3), 0.6)
    assert psnr(image, target) == pytest.approx(20.0, abs=1e-4)
    half = target.clone()
    half[:2] = 0.5
    weights = torch.ones(4, 4)
    weights[:2] = 3.0
    assert psnr(image, half, weights) == pytest.approx(20 + 10 * math.log10(4), abs=1e-4)
    assert psnr(image, image) == math.inf


def test_ssim_is_what_the_formula_leaves() -> None:
    image, target = pair(23, 31)
    weights = holes(23, 31)
    l1 = ((image - target).abs().mean(-1) * weights).sum() / weights.sum()
    expected = 1 - (plain_loss(image, target, weights) - 0.8 * l1) / 0.2
    assert ssim(image.float(), target.float(), weights) == pytest.approx(float(expected), abs=1e-5)
    assert ssim(image.float(), image.float()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "weights",
    [torch.zeros(5, 6), -torch.ones(5, 6), torch.full((5, 6), math.nan), torch.ones(6, 5)],
)
def test_weights_that_cannot_be_used(weights: Tensor) -> None:
    image, target = pair(5, 6)
    with pytest.raises(SceneError, match="weights"):
        photometric_loss(image, target, weights)


def test_pictures_of_two_sizes() -> None:
    with pytest.raises(SceneError, match="4 x 5 x 3"):
        photometric_loss(torch.zeros(4, 5, 3), torch.zeros(5, 4, 3))
