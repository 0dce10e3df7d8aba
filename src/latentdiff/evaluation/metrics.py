"""Metrics that compare images with their originals, and a set of images with another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdiff.errors import InputError

WINDOW, SIGMA = 11, 1.5  # the size and standard deviation of SSIM's Gaussian window, in pixels
K1, K2 = 0.01, 0.03  # SSIM's constants for the luminance and for the contrast
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # MS-SSIM's exponents, fine to coarse
MS_SSIM_SMALLEST = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # so that a window fits at the coarsest scale


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, (B,); infinite for equal images.

    Args:
        images: Images (B, C, H, W) in [0, 1].
        targets: The originals, of the same shape.

    Raises:
        InputError: If the shapes differ or are not (B, C, H, W).
    """
    _check(images, targets, 1)
    return -10 * (images - targets).square().mean(dim=(1, 2, 3)).log10()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity of each image, (B,), at most 1 (Wang et al. 2004, eq. 13, Gaussian windows of 11 pixels).

    Each channel is compared by itself, and only windows that lie within the image count.

    Args:
        images: Images (B, C, H, W) in [0, 1], with sides of at least 11 pixels.
        targets: The originals, of the same shape.

    Raises:
        InputError: If the shapes differ or are not (B, C, H, W), or a side is too short.
    """
    _check(images, targets, WINDOW)
    luminance, contrast = _likeness(images, targets)
    return (luminance * contrast).mean(dim=(1, 2, 3))


def ms_ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Multi-scale structural similarity of each image, (B,), at most 1 (Wang et al. 2003, eq. 7, five scales).

    Each channel is compared by itself. Contrast and structure below 0, of which the powers would not be real, count as
    0.

    Args:
        images: Images (B, C, H, W) in [0, 1], with sides of at least 176 pixels.
        targets: The originals, of the same shape.

    Raises:
        InputError: If the shapes differ or are not (B, C, H, W), or a side is too short.
    """
    _check(images, targets, MS_SSIM_SMALLEST)
    product: Tensor | float = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance, contrast = _likeness(images, targets)
        last = scale == len(SCALE_WEIGHTS) - 1
        likeness = (luminance * contrast if last else contrast).mean(dim=(2, 3))
        product = product * likeness.clamp(min=0) ** weight
        if not last:
            images, targets = F.avg_pool2d(images, 2), F.avg_pool2d(targets, 2)
    assert isinstance(product, Tensor)
    return product.mean(dim=1)


def _likeness(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM's two factors in every window (B, C, H - 10, W - 10): of the luminance, and of contrast and structure."""
    channels = images.shape[1]
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    line = (-(offsets**2) / (2 * SIGMA**2)).exp()
    line = line / line.sum()
    columns, rows = (line.view(shape).expand(channels, 1, *shape) for shape in ((WINDOW, 1), (1, WINDOW)))

    def local_mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, columns, groups=channels), rows, groups=channels)

    a, b = local_mean(images), local_mean(targets)
    variances = local_mean(images**2) - a**2 + local_mean(targets**2) - b**2
    covariance = local_mean(images * targets) - a * b
    return (2 * a * b + K1**2) / (a**2 + b**2 + K1**2), (2 * covariance + K2**2) / (variances + K2**2)


def frechet_distance(features: Tensor, targets: Tensor) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features (Dowson & Landau 1982, eq. 4).

    FID is this distance for the features of one particular Inception network; report which features yours are. With few
    features the covariances are of low rank, and the distance between two samples of the same images is not near 0.

    Args:
        features: Features (N, D) of N >= 2 images.
        targets: Features (M, D) of M >= 2 other images.

    Raises:
        InputError: If a set has fewer than 2 features.
    """
    if min(len(features), len(targets)) < 2:
        raise InputError(f"{len(features)} and {len(targets)} features are given; a covariance needs at least 2 each")
    features, targets = (values.cpu().double() for values in (features, targets))  # some devices have no float64
    means = [values.mean(dim=0) for values in (features, targets)]
    # With x^T x and y^T y for the covariances, tr (x^T x y^T y)^(1/2) is the sum of the singular values of x y^T.
    x, y = (
        torch.linalg.qr((values - mean) / (len(values) - 1) ** 0.5, mode="r")[1]
        for values, mean in zip((features, targets), means, strict=True)
    )
    shared = torch.linalg.svdvals(x @ y.T).sum()
    return float((means[0] - means[1]).square().sum() + x.square().sum() + y.square().sum() - 2 * shared)


def _check(images: Tensor, targets: Tensor, smallest: int) -> None:
    if images.shape != targets.shape or images.ndim != 4 or min(images.shape[2:]) < smallest:
        raise InputError(
            f"images are {tuple(images.shape)} and targets {tuple(targets.shape)}; both must be (B, C, H, W) of one "
            f"shape, with sides of at least {smallest}"
        )
