"""Autoguidance: a model is guided by a worse version of itself (Karras et al. 2024, arXiv 2406.02507)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from latentdiff.caching import check_branch
from latentdiff.compat import OFFLOAD_HOOK
from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.guidance.common import Interval, check_interval, finite_number
from latentdiff.guidance.two_predictions import TwoPredictions
from latentdiff.nn.context import ContextCache
from latentdiff.sampling import Predictor, SamplingContext
from latentdiff.tasks import AUTOGUIDANCE_SCALE
from latentdiff.types import Components, DenoisingNetwork

COMPARED = 256  # numbers at the beginning of each tensor of two components


@runtime_checkable
class Model(Protocol):
    """A pipeline."""

    unet: DenoisingNetwork

    @property
    def components(self) -> Components:
        """The parts of the model by their names."""
        ...


class AutoGuidance:
    """D = D_weak + scale (D_strong - D_weak), where the weak model is an earlier checkpoint, or smaller (eq. 3).

    Both make the same kind of errors, the weak one more of them, so to go away from it leads to where there are fewer.
    It needs no condition. Behind classifier-free guidance in a list, that is what is strong.

    Args:
        model: The weak model: a pipeline, such as `DiffusionPipeline.from_pretrained` gives, or its network alone. It
            must have been trained on the same latents, with the same noise schedule and prediction type.
        scale: Strength; 1 is no guidance.
        interval: Part of the steps, as fractions from 0 (first) to 1 (last), in which guidance acts.
        conditioning: What the weak network is given, a row for each image, where it has an encoder of its own; by
            default what the strong one is given.

    Raises:
        InputError: If `model` is no model, or scale or interval are out of range.
    """

    def __init__(
        self,
        model: Model | DenoisingNetwork,
        scale: float = AUTOGUIDANCE_SCALE,
        interval: Interval = (0.0, 1.0),
        *,
        conditioning: Conditioning | None = None,
    ) -> None:
        self.scale, self.interval = finite_number("scale", scale), check_interval(interval)
        self.model = model if isinstance(model, Model) else None
        unet = model.unet if isinstance(model, Model) else model
        if not isinstance(unet, DenoisingNetwork):
            raise InputError(
                f"the guiding model is {model!r:.80}; give a pipeline, such as DiffusionPipeline.from_pretrained(...), "
                "or its unet"
            )
        self.unet, self.conditioning = unet, conditioning

    def check_pipeline(self, pipeline: Model) -> None:
        """Check that the guiding model is one of the same latents and condition; pipelines call it before they sample.

        That can't be told of a network alone.

        Raises:
            InputError: If its first stage, its encoder of conditions, prediction type or noise schedule is another.
        """
        if self.model is None:
            return
        ours, theirs = self.model.components, pipeline.components
        schedulers = ours["scheduler"], theirs["scheduler"]
        mine, guided = (scheduler.config.get("prediction_type") for scheduler in schedulers)
        if mine != guided:
            raise InputError(f"the guiding model predicts {mine}, the guided one {guided}; take one of the same")
        if not same_levels(*(getattr(scheduler, "alphas_cumprod", None) for scheduler in schedulers)):
            raise InputError("the guiding model has another noise schedule than the guided one; take one of the same")
        for name, part in theirs.items():
            shared = name == "vae" or (name != "unet" and isinstance(part, torch.nn.Module) and not self.conditioning)
            if shared and not same_weights(ours.get(name), part):
                raise InputError(
                    f"the guiding model has another {name} than the guided one; take an earlier checkpoint or a "
                    f"smaller model that shares it{'' if name == 'vae' else ', or give conditioning'}"
                )

    def __call__(self, predictor: Predictor, context: SamplingContext) -> Predictor:
        """Guide a predictor.

        Raises:
            InputError: If the weak network has other channels, is on another device, has no condition of its own for
                each image, or can't reuse features where the strong one is to.
        """
        if self.scale == 1:
            return predictor
        strong, rows = context.denoiser, context.denoiser.conditioning.batch_size
        for name in ("in_channels", "out_channels", "cross_attention_dim"):
            found, needed = (getattr(unet.config, name, None) for unet in (self.unet, strong.unet))
            if found != needed and (name != "cross_attention_dim" or self.conditioning is None):
                raise InputError(
                    f"the guiding network has {name} {found}, the guided one {needed}; take a model of the same first "
                    "stage and condition"
                )
        device = context.parametrization.timesteps.device
        if self.unet.device.type != device.type and not hasattr(self.unet, OFFLOAD_HOOK):
            raise InputError(f"the guiding network is on {self.unet.device}, the latents are on {device}; use .to()")
        given, dtype = self.conditioning or strong.conditioning, self.unet.dtype
        if isinstance(given.context, ContextCache):
            raise InputError("the context is prepared for the guided network alone; give AutoGuidance a `conditioning`")
        if given.batch_size != rows:
            raise InputError(f"conditioning has {given.batch_size} rows, the guided network's {rows}; give as many")
        if strong.schedule is not None:
            check_branch(self.unet, strong.schedule.branch, "the guiding network")
        weak = strong.with_network(self.unet, given.to(device, dtype))

        def both(latents: Tensor, timestep: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
            prediction = predictor(latents, timestep, fraction)
            return weak(latents.to(dtype), timestep, fraction).to(prediction.dtype), prediction

        return TwoPredictions(both, predictor, lambda: self.scale, self.interval)


def same_levels(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two schedulers have the same alpha_bar (T,) at every training timestep; None is a scheduler without."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.allclose(one.cpu(), other.cpu(), rtol=1e-4, atol=1e-6)


def same_weights(one: object, other: torch.nn.Module) -> bool:
    """Whether two components have tensors of the same names and shapes, which begin with the same numbers."""
    if one is other:
        return True
    if not isinstance(one, torch.nn.Module):
        return False
    ours, theirs = one.state_dict(), other.state_dict()
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
        return False
    # Weights that are offloaded one by one are elsewhere.
    known = [name for name in ours if not ours[name].is_meta and not theirs[name].is_meta]
    if not known:
        return True
    first, second = (
        torch.cat([values[name].flatten()[:COMPARED].float().cpu() for name in known]) for values in (ours, theirs)
    )
    types = {values[name].dtype for values in (ours, theirs) for name in known}
    tolerance = max((torch.finfo(dtype).eps for dtype in types if dtype.is_floating_point), default=0.0)
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance)
