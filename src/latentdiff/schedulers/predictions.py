"""What a network may predict, and the estimates of x0 and the noise that follow from it."""

from __future__ import annotations

from latentdiff.errors import ConfigError
from latentdiff.schedulers.linear_combination import LinearCombination

FLOW = "flow_prediction"
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", FLOW)


def network_scale(kind: str, alpha: float, sigma: float) -> float:
    """The factor from variance-preserving latents to what the network takes.

    A rectified flow takes (1 - s) x0 + s noise, which is the same as alpha x0 + sigma noise but for its scale.
    """
    return 1 / (alpha + sigma) if kind == FLOW else 1.0


def estimates(
    kind: str, alpha: float, sigma: float, x: LinearCombination, out: LinearCombination
) -> tuple[LinearCombination, LinearCombination]:
    """The estimates of x0 and of the noise in x = alpha x0 + sigma noise (Ho et al. 2020, eq. 4).

    v is alpha noise - sigma x0 (Salimans & Ho 2022, arXiv 2202.00512), a flow noise - x0 (Liu et al. 2022, arXiv
    2209.03003).

    Args:
        kind: The prediction type.
        alpha: The scale of the image in `x`, with alpha^2 + sigma^2 = 1.
        sigma: The standard deviation of the noise in `x`.
        x: The sample.
        out: The network's output for the sample in its own scale.

    Raises:
        ConfigError: If the noise is predicted where there is nothing but noise.
    """
    if kind == FLOW:
        scale = network_scale(kind, alpha, sigma)
        return scale * (x - sigma * out), scale * (x + alpha * out)
    if kind == "v_prediction":
        return alpha * x - sigma * out, alpha * out + sigma * x
    if kind == "sample":
        return out, (x - alpha * out) / sigma
    if alpha == 0:
        raise ConfigError(
            "noise says nothing of the image at zero SNR; take a v_prediction model and another solver than PLMS"
        )
    return (x - sigma * out) / alpha, out
