"""Text to image (section 4.3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.pipelines.base import DiffusionPipeline, Seed
from latentdiff.pipelines.prompts import as_list, tokenize


class TextToImagePipeline(DiffusionPipeline):
    """Images for prompts, by cross-attention to a text encoder's states.

    Args:
        vae: First stage, KL or VQ.
        text_encoder: `latentdiff.LDMTextEncoder` or a CLIP text model: token ids to `last_hidden_state` (B, L, d).
        tokenizer: Of the text encoder.
        unet: `latentdiff.UNet2DConditionModel` or a stock one with cross-attention.
        scheduler: Any own or diffusers scheduler.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(self, vae: AutoencoderKL, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)

    @property
    def max_length(self) -> int:
        """Tokens that the text encoder takes, start and end included."""
        return int(self.text_encoder.config.max_position_embeddings)

    def encode_prompt(
        self, prompt: str | list[str], *, may_be_empty: bool = False, device: torch.device | None = None
    ) -> torch.Tensor:
        """The text encoder's states (B, L, d) of one prompt or a list, computed on `device`, the pipeline's by default.

        Raises:
            InputError: If a prompt is no string, empty, overlong, or holds characters that are no text.
        """
        prompts = as_list(prompt, may_be_empty=may_be_empty)
        # Equal prompts are encoded once: guidance needs the same empty prompt for every image.
        distinct = list(dict.fromkeys(prompts))
        ids = tokenize(self.tokenizer, distinct, self.max_length).to(device or self._execution_device)
        states: torch.Tensor = self.text_encoder(ids).last_hidden_state
        return states if distinct == prompts else states[[distinct.index(p) for p in prompts]]

    def _unconditional(
        self,
        negative_prompt: str | list[str] | None,
        negative_prompt_embeds: torch.Tensor | None,
        batch: int,
        device: torch.device,
    ) -> torch.Tensor:
        """States (B, L, d) of the negative prompt, the empty one by default."""
        if negative_prompt_embeds is not None:
            states = negative_prompt_embeds.to(device)
        else:
            states = self.encode_prompt(negative_prompt or "", may_be_empty=True, device=device)
        if len(states) not in (1, batch):
            raise InputError(f"{len(states)} negative prompts are given for {batch} prompts; give one each, or one")
        return states.expand(batch, -1, -1)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        *,
        seed: Seed = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
    ) -> Any:
        """Make images.

        Args:
            prompt: One prompt or a list.
            height: In pixels; the model's own size by default.
            width: In pixels.
            num_inference_steps: Steps of the solver.
            timesteps: The solver's timesteps, descending, in place of `num_inference_steps`.
            sigmas: The solver's noise levels, descending, in place of `num_inference_steps`.
            guidance_scale: Strength of classifier-free guidance; 1 turns it off.
            negative_prompt: What guidance leads away from; the empty prompt by default.
            num_images_per_prompt: Images for each prompt, next to each other in the result.
            eta: Stochasticity of DDIM, in [0, 1].
            generator: torch's generator(s), as in diffusers; `seed` is the simpler way.
            latents: Initial noise (B, C, h, w) from N(0, 1).
            prompt_embeds: Text states (B, L, d) in place of `prompt`.
            negative_prompt_embeds: Text states (B, L, d) in place of `negative_prompt`.
            output_type: "pil"; "np", (B, H, W, 3) in [0, 1]; "pt", (B, 3, H, W) in [0, 1]; or "latent".
            return_dict: Return an object with `images`, else a tuple.
            callback_on_step_end: Called as (pipeline, step, timestep, tensors), returns the tensors to go on with.
            callback_on_step_end_tensor_inputs: Which tensors it receives: "latents".
            seed: An integer, or one for each image. Image i of seed s equals image 0 of seed s + i, in any batch.
            guidance_interval: Part of the steps in which guidance acts, as fractions.
            guidance_rescale: Correction of guidance's overexposure, in [0, 1].

        Raises:
            InputError: If an argument is not valid; nothing has been computed then.
        """
        size = self._check_size(height, width)
        if (prompt is None) == (prompt_embeds is None):
            raise InputError("give either prompt or prompt_embeds, one of the two")
        if (
            isinstance(num_images_per_prompt, bool)
            or not isinstance(num_images_per_prompt, int)
            or num_images_per_prompt < 1
        ):
            raise InputError(f"num_images_per_prompt is {num_images_per_prompt!r}; it must be an integer of at least 1")
        device = self._execution_device  # a walk over all modules, so it is done once
        states = prompt_embeds if prompt is None else self.encode_prompt(prompt, device=device)
        assert states is not None
        states = states.to(device, self.unet.dtype)
        guidance = []
        if guidance_scale != 1:
            negative = self._unconditional(negative_prompt, negative_prompt_embeds, len(states), device).to(
                states.dtype
            )
            unconditional = Conditioning(negative.repeat_interleave(num_images_per_prompt, 0))
            guidance = [ClassifierFreeGuidance(unconditional, guidance_scale, guidance_interval, guidance_rescale)]
        elif negative_prompt is not None or negative_prompt_embeds is not None:
            raise InputError("negative_prompt has no effect at guidance_scale 1; drop it or raise the scale")
        states = states.repeat_interleave(num_images_per_prompt, 0)
        return self._generate(
            Conditioning(states),
            len(states),
            size,
            guidance=guidance,
            num_inference_steps=num_inference_steps,
            timesteps=timesteps,
            sigmas=sigmas,
            eta=eta,
            seed=seed,
            generator=generator,
            latents=latents,
            output_type=output_type,
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
