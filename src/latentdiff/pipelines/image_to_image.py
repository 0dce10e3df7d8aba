"""Images from images: SDEdit (Meng et al. 2022, arXiv 2108.01073) and the original code's masked sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.common import check_interval, check_rescale, finite_number
from latentdiff.io.inputs import read_images, read_masks
from latentdiff.models.class_embedder import ClassEmbedder
from latentdiff.pipelines import codec
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.class_conditioning import ClassConditioningMixin
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.padding import Composite, Padding
from latentdiff.pipelines.start import StartPoint
from latentdiff.pipelines.text_conditioning import PromptOptions, TextConditioningMixin
from latentdiff.tasks import TEXT_GUIDANCE_SCALE
from latentdiff.types import DenoisingNetwork, FirstStage, ImageInput, Labels, Scheduler, TextEncoder, Tokenizer


class ImageToImagePipeline(TextConditioningMixin, ClassConditioningMixin, DiffusionPipeline):
    """Changes an image, all of it or under a mask, with any text, class-conditional or unconditional model.

    Make it of another pipeline's components: `ImageToImagePipeline.from_pipe(pipe)`.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` or a stock one.
        scheduler: A scheduler of this package or of diffusers.
        text_encoder: The text encoder of a text model; None for other models.
        tokenizer: The tokenizer of a text model; None for other models.
        class_embedder: The class embedder of a class-conditional model; None for other models.
    """

    model_cpu_offload_seq = "text_encoder->class_embedder->unet->vae"
    _optional_components: ClassVar[list[str]] = ["text_encoder", "tokenizer", "class_embedder"]

    # The mixins' methods need theirs; `_conditioning` sees to it that they are called only where it is there.
    text_encoder: TextEncoder | None  # type: ignore[assignment]
    tokenizer: Tokenizer | None  # type: ignore[assignment]
    class_embedder: ClassEmbedder | None  # type: ignore[assignment]

    def __init__(
        self,
        vae: FirstStage,
        unet: DenoisingNetwork,
        scheduler: Scheduler,
        text_encoder: TextEncoder | None = None,
        tokenizer: Tokenizer | None = None,
        class_embedder: ClassEmbedder | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            class_embedder=class_embedder,
        )

    def _gives_context(self) -> bool:
        return self.text_encoder is not None or self.class_embedder is not None

    @sampling_call
    def __call__(
        self,
        image: ImageInput,
        prompt: str | Sequence[str] | None = None,
        *,
        class_labels: Labels | None = None,
        mask_image: ImageInput | None = None,
        strength: float = 0.8,
        guidance_scale: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        negative_class_labels: Labels | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        truncate_prompt: bool = False,
        clip_skip: int | None = None,
        cross_attention_kwargs: Mapping[str, float] | None = None,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images like the given ones.

        Args:
            image: One image or several of one size: paths, PIL images, arrays (H, W, 3) or tensors (3, H, W).
            prompt: What a text model shall show: one prompt, or one for each image. Other models take none.
            class_labels: What a class-conditional model shall show: one class, or one for each image. Other models take
                none.
            mask_image: White where the image is made anew; all of it by default. Before every step the rest is set to
                the image, noised to the step's level, and at the end to the image itself.
            strength: Share of the steps that are made, in (0, 1]: how far the result may go from the image. At 1 it
                starts from noise alone, so that only a mask keeps anything.
            guidance_scale: Strength of classifier-free guidance; by default 5 for text, and for classes as in
                `ClassToImagePipeline`.
            negative_prompt: What guidance of a text model leads away from; the empty prompt by default.
            negative_class_labels: What guidance of a class-conditional model leads away from; the null class by
                default.
            guidance_interval: Part of the steps in which guidance acts, as fractions.
            guidance_rescale: Correction of guidance's overexposure, in [0, 1].
            truncate_prompt: Whether to leave out what is too long of a prompt, and warn of it, rather than to raise.
            clip_skip: How many of the last layers of a CLIP text encoder to leave out.
            cross_attention_kwargs: {"scale": s}, a factor on the strength of the LoRA adapters in this call.
            **keywords: The shared options, see `SamplingOptions`.

        Returns:
            Images of the given size.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 < strength <= 1:
            raise InputError(f"strength is {strength!r}; it must be above 0 and at most 1")
        options = self._complete(keywords)
        images = read_images(image, channels=self.vae.config.in_channels)
        padding = Padding(images.shape[2], images.shape[3], self._multiple)
        self._check_size(*padding.size, options.windows)
        count = options.num_images_per_prompt
        with self._scaled_adapters(cross_attention_kwargs):
            conditioning, guidance = self._conditioning(
                prompt,
                class_labels,
                negative_prompt,
                negative_class_labels,
                scale=guidance_scale,
                interval=guidance_interval,
                rescale=guidance_rescale,
                images=count,
                options=PromptOptions(truncate_prompt, clip_skip),
            )
        batch = conditioning.batch_size or len(images) * count
        if batch % (len(images) * count) or (len(images) > 1 and batch != len(images) * count):
            raise InputError(f"{len(images)} images are given for {batch // count} conditions; give one each, or one")
        latents = codec.encode(self.vae, padding.pad(images), scaled=True, windows=options.windows)
        rows = batch // len(images)
        finish: Callable[[torch.Tensor], torch.Tensor] = padding.crop
        kept = None
        if mask_image is not None:
            holes = read_masks(mask_image, size=(images.shape[2], images.shape[3])).expand(len(images), -1, -1, -1)
            kept = self._kept(padding.pad(holes)).repeat_interleave(rows, 0)
            finish = Composite(images, holes, padding, rows)
        start = StartPoint(latents.repeat_interleave(rows, 0), strength, kept)
        with self._scaled_adapters(cross_attention_kwargs):
            return self._generate(
                conditioning, padding.size, options, batch_size=batch, guidance=guidance, start=start, finish=finish
            )

    def _kept(self, holes: torch.Tensor) -> torch.Tensor:
        """1 for latents (B, 1, h, w) whose pixels are all known, by holes (B, 1, H, W) in {0, 1}."""
        return 1 - F.max_pool2d(holes, self.vae_scale_factor)

    def _conditioning(
        self,
        prompt: str | Sequence[str] | None,
        class_labels: Labels | None,
        negative_prompt: str | Sequence[str] | None,
        negative_class_labels: Labels | None,
        *,
        scale: float | None,
        interval: tuple[float, float],
        rescale: float,
        images: int,
        options: PromptOptions,
    ) -> tuple[Conditioning, list[ClassifierFreeGuidance]]:
        """The conditioning of what the model takes, and the guidance; InputError if anything else is given."""
        text, classes = self.text_encoder is not None, self.class_embedder is not None
        for name, taken, values in (
            ("prompt", text, (prompt, negative_prompt)),
            ("class_labels", classes, (class_labels, negative_class_labels)),
        ):
            if taken and values[0] is None:
                raise InputError(f"{name} is missing; say what to make")
            if not taken and any(value is not None for value in values):
                raise InputError(f"{name} or its negative is given, but this model takes none; leave it out")
        if text:
            scale = TEXT_GUIDANCE_SCALE if scale is None else scale
            return self._text_conditioning(
                prompt,
                negative_prompt,
                scale=scale,
                interval=interval,
                rescale=rescale,
                images=images,
                options=options,
            )
        if class_labels is not None:
            return self._class_conditioning(
                class_labels, negative_class_labels, scale=scale, interval=interval, rescale=rescale, images=images
            )
        check_interval(interval), check_rescale(rescale)
        if scale is not None and finite_number("guidance_scale", scale) != 1:
            raise InputError("guidance_scale is given, but this model takes no condition; leave it out")
        return Conditioning(), []
