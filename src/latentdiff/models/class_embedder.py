"""The embedding of class labels as a context of one token (section 4.2 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from latentdiff.errors import ConfigError, InputError
from latentdiff.labels import check_class_names


class ClassEmbedder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A learned vector for every class: labels (B,) to a context (B, 1, embed_dim).

    Args:
        num_classes: Number of labels, including the null class of guidance if there is one.
        embed_dim: Channels of the context.
        null_class: The label that stands for no class in classifier-free guidance; None if there is none.
        class_names: The name of each label, in order; the null class needs no name if it is the last label.

    Raises:
        ConfigError: If a number is not positive, the null class is not a label, or there isn't one name for each label.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        num_classes: int = 1000,
        embed_dim: int = 512,
        null_class: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("embed_dim", embed_dim)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a positive integer")
        if null_class is not None and not 0 <= null_class < num_classes:
            raise ConfigError(f"null_class is {null_class}; it must be from 0 to {num_classes - 1}, or null")
        # The names may leave out the null class where it is the last label.
        nameless = null_class == num_classes - 1 and class_names is not None and len(class_names) == null_class
        check_class_names(class_names, num_classes - 1 if nameless else num_classes)
        self.embedding = nn.Embedding(num_classes, embed_dim)

    def forward(self, labels: Tensor) -> Tensor:
        """The context (B, 1, embed_dim) of integer labels (B,); their range is checked on the CPU only.

        Raises:
            InputError: If the labels are not integers (B,), or one is out of range.
        """
        count = self.config["num_classes"]
        if labels.ndim != 1 or labels.dtype not in (torch.int64, torch.int32):
            raise InputError(f"labels are {labels.dtype} of shape {tuple(labels.shape)}; give int64 (B,)")
        if labels.device.type == "cpu" and not bool(((labels >= 0) & (labels < count)).all()):
            raise InputError(f"labels reach from {labels.min()} to {labels.max()}; allowed: 0 to {count - 1}")
        out: Tensor = self.embedding(labels)[:, None]
        return out
