"""Class-conditional image synthesis (section 4.2 of the paper, table 3)."""

from __future__ import annotations

from typing_extensions import Unpack

from latentdiff.models.class_embedder import ClassEmbedder
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.class_conditioning import ClassConditioningMixin
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.types import DenoisingNetwork, FirstStage, Labels, Scheduler


class ClassToImagePipeline(ClassConditioningMixin, DiffusionPipeline):
    """Images of classes, by cross-attention to a learned vector for each.

    Args:
        vae: First stage, KL or VQ.
        class_embedder: `latentdiff.ClassEmbedder`; its null class makes classifier-free guidance possible.
        unet: `latentdiff.UNet2DConditionModel` with cross-attention.
        scheduler: A scheduler of this package or of diffusers.
    """

    model_cpu_offload_seq = "class_embedder->unet->vae"

    def __init__(
        self, vae: FirstStage, class_embedder: ClassEmbedder, unet: DenoisingNetwork, scheduler: Scheduler
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, class_embedder=class_embedder, unet=unet, scheduler=scheduler)

    def _gives_context(self) -> bool:
        return True

    @sampling_call
    def __call__(
        self,
        class_labels: Labels,
        height: int | None = None,
        width: int | None = None,
        *,
        guidance_scale: float | None = None,
        negative_class_labels: Labels | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images.

        Args:
            class_labels: A class or a list of them: numbers, or names if the model has some.
            height: Height in pixels; the model's own by default.
            width: Width in pixels; the model's own by default.
            guidance_scale: Strength of classifier-free guidance, 1 turns it off; by default 3 where the model has a
                null class, else 1.
            negative_class_labels: What guidance leads away from; the null class by default.
            guidance_interval: Part of the steps in which guidance acts, as fractions.
            guidance_rescale: Correction of guidance's overexposure, in [0, 1].
            **keywords: The shared options, see `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        options = self._complete(keywords)
        size = self._check_size(height, width, options.windows)
        conditioning, guidance = self._class_conditioning(
            class_labels,
            negative_class_labels,
            scale=guidance_scale,
            interval=guidance_interval,
            rescale=guidance_rescale,
            images=options.num_images_per_prompt,
        )
        return self._generate(conditioning, size, options, guidance=guidance)
