"""No condition (section 4.1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Columns, Rows
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner
from latentdiff.training.diffusion.conditioners.options import UnconditionalOptions


class NoCondition(Conditioner[UnconditionalOptions]):
    """Conditions on nothing."""

    options_class = UnconditionalOptions

    def rows(self, images: Images) -> Rows:
        """Nothing is read of an image."""
        return Columns()

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """Nothing is shown to the network."""
        return Conditioning()
