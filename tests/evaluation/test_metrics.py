"""Figures of likeness, against their definitions written out and against closed forms."""

import math

import pytest
import torch

from latentdiff import InputError
from latentdiff.evaluation.metrics import frechet_distance, psnr, ssim


def noisy(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, generator=rng, dtype=torch.float64)
    return a, (a + 0.1 * torch.randn(shape, generator=rng, dtype=torch.float64)).clamp(0, 1)


def test_psnr_of_a_known_error():
    image = torch.full((2, 3, 4, 5), 0.5)
    other = image + torch.tensor([0.1, 0.01])[:, None, None, None]
    torch.testing.assert_close(psnr(image, other), torch.tensor([20.0, 40.0]), rtol=1e-4, atol=0)
    assert torch.isinf(psnr(image, image)).all()


def test_ssim_is_its_definition_window_by_window():
    a, b = noisy(1, 2, 13, 12)
    x = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for channel in range(2):
        for top in range(3):
            for left in range(2):
                p, q = (image[0, channel, top : top + 11, left : left + 11] for image in (a, b))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
                shared = (window * (p - mean_p) * (q - mean_q)).sum()
                found.append(
                    (2 * mean_p * mean_q + 1e-4)
                    * (2 * shared + 9e-4)
                    / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4))
                )
    torch.testing.assert_close(ssim(a, b)[0], torch.stack(found).mean(), rtol=1e-9, atol=0)
    torch.testing.assert_close(ssim(a, a), torch.ones(1, dtype=torch.float64))


def test_frechet_distance_of_moments_that_commute():
    """Of diagonal covariances it is |m - n|^2 + sum (s - t)^2; of turned ones the same."""
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(50, 3, generator=rng, dtype=torch.float64)
    centred = points - points.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(centred.T))).T
    s, t, shift = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 2, 3], [2.0, 2, 0.5], [1.0, -1, 0.5]))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))[0]
    expected = float(((s - t) ** 2).sum() + (shift**2).sum())
    assert frechet_distance(white * s, white * t + shift) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(white * s @ turn, (white * t + shift) @ turn) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(points[:2], points[:2]) == pytest.approx(0, abs=1e-9)  # of low rank, too
    assert math.isclose(frechet_distance(points[:, :1], points[:, :1] + 2), 4, rel_tol=1e-9)


def test_what_cannot_be_measured_is_one_line():
    for call, match in (
        (lambda: ssim(*noisy(1, 1, 10, 20)), "at least 11"),
        (lambda: psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)), "one shape"),
        (lambda: frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2)), "at least 2"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
