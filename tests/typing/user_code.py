"""What users write, for type checkers alone: neither finds an error, and `assert_type` holds what both reveal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Unpack

from latentdiff import (
    AutoPipeline,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClassToImagePipeline,
    Conditioning,
    DDIMScheduler,
    DiffusionPipeline,
    ImageGuidance,
    ImagePipelineOutput,
    ImageToImagePipeline,
    InpaintPipeline,
    LayoutToImagePipeline,
    NoisyLatentClassifier,
    SamplingKeywords,
    SamplingOptions,
    SemanticToImagePipeline,
    SuperResolutionPipeline,
    TextToImagePipeline,
    UnconditionalPipeline,
    UNet2DConditionModel,
    Windows,
)
from latentdiff.pipelines.options import sampling_call
from latentdiff.pipelines.outputs import OutputT, OutputType
from latentdiff.sampling import Predictor, SamplingContext
from latentdiff.types import DenoisingNetwork, FirstStage, Scheduler, TextEncoder, Tokenizer

# Where pipelines come from.
pipe = TextToImagePipeline.from_pretrained("builtin:emoji", dtype=torch.float16)
assert_type(pipe, TextToImagePipeline)
assert_type(TextToImagePipeline.from_original("model.ckpt", ema=False), TextToImagePipeline)
assert_type(TextToImagePipeline.from_pipe(pipe), TextToImagePipeline)
assert_type(DiffusionPipeline.from_pretrained(Path("folder"), revision="main"), DiffusionPipeline)
assert_type(AutoPipeline.from_pretrained("folder", task="inpaint", variant="fp16"), DiffusionPipeline)
assert_type(AutoPipeline.from_pipe(pipe, "image-to-image"), DiffusionPipeline)

# Their components.
assert_type(pipe.vae, FirstStage)
assert_type(pipe.unet, DenoisingNetwork)
assert_type(pipe.scheduler, Scheduler)
assert_type(pipe.text_encoder, TextEncoder)
assert_type(pipe.tokenizer, Tokenizer)
assert_type(pipe.unet.dtype, torch.dtype)
assert_type(ImageToImagePipeline.from_pipe(pipe).text_encoder, TextEncoder | None)
assert_type(pipe.vae_scale_factor, int)
pipe.set_scheduler("dpmpp_2m", use_karras_sigmas=True)
pipe.set_scheduler(EulerDiscreteScheduler)
pipe.set_scheduler(DDIMScheduler())

# Stock and own components fit the same pipelines.
stock = UnconditionalPipeline(AutoencoderKL(), UNet2DModel(), EulerDiscreteScheduler())
own = UnconditionalPipeline(vae=stock.vae, unet=UNet2DConditionModel(), scheduler=DDIMScheduler())

# Calls: what `images` are follows from `output_type`.
assert_type(pipe("a red apple"), ImagePipelineOutput[Literal["pil"]])
assert_type(pipe("a red apple", seed=0, num_inference_steps=25, guidance_scale=5.0).images, list[Image.Image])
pipe(["a red apple", "a pear"], height=64, width=64, seed=[1, 2]).images[0].save("apple.png")
assert_type(pipe("a red apple", output_type="np").images, NDArray[np.float32])
assert_type(pipe("a red apple", output_type="pt").images, torch.Tensor)
assert_type(own(4, output_type="latent", windows=Windows(256, 64)).images, torch.Tensor)
AutoPipeline.from_pretrained("folder")("anything", seed=3).images[0].save("image.png")


def either(output_type: OutputType) -> list[Image.Image] | NDArray[np.float32] | torch.Tensor:
    """The type of the output may be known at run time only."""
    return pipe("a cat", output_type=output_type).images


# The other tasks' inputs.
classes = ClassToImagePipeline.from_pretrained("folder")
classes(3)
classes(["cat", 7], negative_class_labels="dog")
LayoutToImagePipeline.from_pretrained("folder")([{"class": "cat", "box": (0.1, 0.2, 0.5, 0.6)}])
LayoutToImagePipeline.from_pretrained("folder")([[{"class": 1, "box": [0, 0, 9, 9]}], []], image_size=(64, 64))
SemanticToImagePipeline.from_pretrained("folder")(np.zeros((64, 64), dtype=np.uint8), ignore_index=255)
SuperResolutionPipeline.from_pretrained("folder")("small.png", windows=512)
InpaintPipeline.from_pretrained("folder")(Path("photo.png"), Image.new("L", (64, 64)))
ImageToImagePipeline.from_pipe(pipe)([Image.new("RGB", (64, 64))], "a pear", strength=0.6)

# A ready conditioning, and guidance.
context = pipe.encode_prompt("a red apple")
empty = pipe.encode_prompt("", may_be_empty=True)
guide = ClassifierFreeGuidance(Conditioning(empty), scale=5.0)
assert_type(pipe.generate_from(Conditioning(context), guidance=[guide], seed=0).images, list[Image.Image])
assert_type(pipe.generate_from(Conditioning(), batch_size=2, output_type="pt").images, torch.Tensor)
classifier = NoisyLatentClassifier()
ClassifierGuidance(classifier, ["cat", "dog"], scale=10.0)
ImageGuidance(pipe.vae, torch.zeros(1, 3, 64, 64), scale=0.1)


def quieter(predictor: Predictor, context: SamplingContext) -> Predictor:
    """A guidance object of a user's own."""

    def predict(latents: torch.Tensor, timestep: torch.Tensor, fraction: float) -> torch.Tensor:
        prediction = predictor(latents, timestep, fraction)
        epsilon = context.parametrization.epsilon(latents, prediction, timestep)
        return context.parametrization.shift(prediction, -0.05 * epsilon, timestep)

    return predict


def watch(
    pipeline: TextToImagePipeline, step: int, timestep: torch.Tensor, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A callback of a user's own."""
    return {"latents": tensors["latents"] * 0.99}


pipe("a cat", guidance=[quieter], callback_on_step_end=watch)

# The shared options, passed on and received.


def batch_of(prompts: list[str], **keywords: Unpack[SamplingKeywords]) -> list[Image.Image]:
    """A function that takes the shared options as well."""
    return pipe(prompts, **keywords).images


batch_of(["a cat"], eta=0.5, num_inference_steps=10)
assert_type(SamplingOptions(eta=0.5).num_inference_steps, int | str)
assert_type(SamplingOptions(output_type="np").output_type, Literal["np"])


class MyPipeline(DiffusionPipeline):
    """A pipeline of a user's own."""

    @sampling_call
    def __call__(
        self, palette: torch.Tensor, **keywords: Unpack[SamplingKeywords[OutputT]]
    ) -> ImagePipelineOutput[OutputT]:
        """Make images of a palette."""
        return self.generate_from(Conditioning(concat=palette), **keywords)


assert_type(MyPipeline.from_pretrained("folder")(torch.zeros(1, 3, 8, 8), output_type="pt").images, torch.Tensor)
configuration: dict[str, Any] = dict(pipe.scheduler.config)
