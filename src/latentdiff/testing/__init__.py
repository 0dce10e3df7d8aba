"""Tests for a scheduler of your own: `check_scheduler` checks it, `measure_order` measures how fast it converges."""

from latentdiff.testing.conformance import Check, ConformanceError, Report, check_scheduler
from latentdiff.testing.gaussian import GaussianData, flow_error, measure_order

__all__ = ["Check", "ConformanceError", "GaussianData", "Report", "check_scheduler", "flow_error", "measure_order"]
