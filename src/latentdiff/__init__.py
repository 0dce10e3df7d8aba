"""Latent diffusion models (Rombach et al. 2022, arXiv 2112.10752): sample, convert and train them.

Every public name is imported when it is first used, so `import latentdiff` itself costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "latentdiff.errors": [
        "BadFileError",
        "CheckpointError",
        "ConfigError",
        "HubError",
        "InputError",
        "LatentDiffError",
        "TooLargeError",
        "UnsafeCheckpointError",
    ],
    "latentdiff.registry": ["load_plugins"],
    "latentdiff.conditioning": ["Conditioning"],
    "latentdiff.pipelines.base": ["DiffusionPipeline"],
    "latentdiff.pipelines.auto": ["AutoPipeline"],
    "latentdiff.pipelines.text_to_image": ["TextToImagePipeline"],
    "latentdiff.pipelines.unconditional": ["UnconditionalPipeline"],
    "latentdiff.pipelines.class_to_image": ["ClassToImagePipeline"],
    "latentdiff.pipelines.layout_to_image": ["LayoutToImagePipeline"],
    "latentdiff.pipelines.semantic_to_image": ["SemanticToImagePipeline"],
    "latentdiff.pipelines.super_resolution": ["SuperResolutionPipeline"],
    "latentdiff.pipelines.inpaint": ["InpaintPipeline"],
    "latentdiff.pipelines.image_to_image": ["ImageToImagePipeline"],
    "latentdiff.pipelines.options": ["SamplingOptions"],
    "latentdiff.windows": ["Windows"],
    "latentdiff.models.unet": ["UNet2DConditionModel"],
    "latentdiff.models.text_encoder": ["LDMTextEncoder"],
    "latentdiff.models.autoencoder_vq": ["VQModel"],
    "latentdiff.models.class_embedder": ["ClassEmbedder"],
    "latentdiff.models.classifier": ["NoisyLatentClassifier"],
    "latentdiff.models.layout_tokenizer": ["LayoutTokenizer"],
    "latentdiff.models.lpips": ["LPIPS", "PerceptualDistance"],
    "latentdiff.models.segmentation_encoder": ["SegmentationEncoder"],
    "latentdiff.guidance.classifier": ["ClassifierGuidance"],
    "latentdiff.guidance.image": ["ImageGuidance"],
    "latentdiff.schedulers.ddpm": ["DDPMScheduler"],
    "latentdiff.schedulers.ddim": ["DDIMScheduler"],
    "latentdiff.schedulers.plms": ["PLMSScheduler"],
    "latentdiff.schedulers.euler": ["EulerScheduler", "EulerAncestralScheduler"],
    "latentdiff.schedulers.heun": ["HeunScheduler"],
    "latentdiff.schedulers.dpmpp": ["DPMSolverPP2MScheduler", "DPMSolverPP2MSDEScheduler"],
    "latentdiff.schedulers.unipc": ["UniPCScheduler"],
    "latentdiff.schedulers.lcm": ["LCMScheduler"],
    # diffusers looks a third-party component's base class up in the top package of the component.
    "diffusers": ["ModelMixin", "SchedulerMixin"],
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'latentdiff' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
