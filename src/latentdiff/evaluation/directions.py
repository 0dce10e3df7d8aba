"""Whether a higher number of a metric is the better one, which is the metric's own affair."""

from __future__ import annotations

from collections.abc import Mapping

from latentdiff.errors import ConfigError
from latentdiff.evaluation.first_stage import OF_SETS
from latentdiff.evaluation.set_metrics import SET_METRICS
from latentdiff.registry import METRICS

OF_SAMPLES = {name: metric.higher_is_better for metric in SET_METRICS for name in metric.all_names}

HIGHER_IS_BETTER: Mapping[str, bool] = {
    **OF_SAMPLES,
    **{name: OF_SAMPLES[of_samples] for name, of_samples in OF_SETS.items()},
    "psnr": True,
    "ssim": True,
    "ms_ssim": True,
    "lpips": False,
    "psim": False,
}
"""The package's own metrics, by the name before the brackets; others of `METRICS` say it by an attribute."""


def higher_is_better(metric: str) -> bool:
    """Whether a higher number is the better one.

    Args:
        metric: The name of a metric, such as "psnr"; one of your own in the registry `METRICS` says it by an attribute
            `higher_is_better`, as torchmetrics has it.

    Raises:
        ConfigError: If it doesn't say it, or there is no such metric.
    """
    if metric in HIGHER_IS_BETTER:
        return HIGHER_IS_BETTER[metric]
    found = getattr(METRICS.get(metric), "higher_is_better", None)
    if not isinstance(found, bool):
        raise ConfigError(
            f"whether a higher {metric} is better is not known; set the attribute higher_is_better of its function to "
            "True or False"
        )
    return found
