"""Latent diffusion models (Rombach et al. 2022, arXiv 2112.10752): sample, convert and train them.

Every public name is imported when it is first used, so `import latentdiff` itself costs nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers and editors see; a test holds it to the table below
    from diffusers.models.modeling_utils import ModelMixin as ModelMixin
    from diffusers.schedulers.scheduling_utils import SchedulerMixin as SchedulerMixin

    from latentdiff.conditioning import Conditioning as Conditioning
    from latentdiff.errors import BadFileError as BadFileError
    from latentdiff.errors import CheckpointError as CheckpointError
    from latentdiff.errors import ConfigError as ConfigError
    from latentdiff.errors import HubError as HubError
    from latentdiff.errors import InputError as InputError
    from latentdiff.errors import LatentDiffError as LatentDiffError
    from latentdiff.errors import TooLargeError as TooLargeError
    from latentdiff.errors import UnsafeCheckpointError as UnsafeCheckpointError
    from latentdiff.guidance.auto import AutoGuidance as AutoGuidance
    from latentdiff.guidance.classifier import ClassifierGuidance as ClassifierGuidance
    from latentdiff.guidance.classifier_free import ClassifierFreeGuidance as ClassifierFreeGuidance
    from latentdiff.guidance.image import ImageGuidance as ImageGuidance
    from latentdiff.guidance.plus_plus import CFGPlusPlus as CFGPlusPlus
    from latentdiff.guidance.projected import AdaptiveProjectedGuidance as AdaptiveProjectedGuidance
    from latentdiff.models.autoencoder_fsq import FSQModel as FSQModel
    from latentdiff.models.autoencoder_rvq import ResidualVQModel as ResidualVQModel
    from latentdiff.models.autoencoder_vq import VQModel as VQModel
    from latentdiff.models.class_embedder import ClassEmbedder as ClassEmbedder
    from latentdiff.models.classifier import NoisyLatentClassifier as NoisyLatentClassifier
    from latentdiff.models.layout_tokenizer import LayoutTokenizer as LayoutTokenizer
    from latentdiff.models.lpips import LPIPS as LPIPS
    from latentdiff.models.lpips import PerceptualDistance as PerceptualDistance
    from latentdiff.models.segmentation_encoder import SegmentationEncoder as SegmentationEncoder
    from latentdiff.models.text_encoder import LDMTextEncoder as LDMTextEncoder
    from latentdiff.models.tiny_decoder import TinyDecoder as TinyDecoder
    from latentdiff.models.unet import UNet2DConditionModel as UNet2DConditionModel
    from latentdiff.pipelines.auto import AutoPipeline as AutoPipeline
    from latentdiff.pipelines.base import DiffusionPipeline as DiffusionPipeline
    from latentdiff.pipelines.class_to_image import ClassToImagePipeline as ClassToImagePipeline
    from latentdiff.pipelines.hybrid import HybridPipeline as HybridPipeline
    from latentdiff.pipelines.image_to_image import ImageToImagePipeline as ImageToImagePipeline
    from latentdiff.pipelines.inpaint import InpaintPipeline as InpaintPipeline
    from latentdiff.pipelines.layout_to_image import LayoutToImagePipeline as LayoutToImagePipeline
    from latentdiff.pipelines.options import SamplingKeywords as SamplingKeywords
    from latentdiff.pipelines.options import SamplingOptions as SamplingOptions
    from latentdiff.pipelines.outputs import ImagePipelineOutput as ImagePipelineOutput
    from latentdiff.pipelines.semantic_to_image import SemanticToImagePipeline as SemanticToImagePipeline
    from latentdiff.pipelines.super_resolution import SuperResolutionPipeline as SuperResolutionPipeline
    from latentdiff.pipelines.text_to_image import TextToImagePipeline as TextToImagePipeline
    from latentdiff.pipelines.unconditional import UnconditionalPipeline as UnconditionalPipeline
    from latentdiff.registry import load_plugins as load_plugins
    from latentdiff.schedulers.ddim import DDIMScheduler as DDIMScheduler
    from latentdiff.schedulers.ddpm import DDPMScheduler as DDPMScheduler
    from latentdiff.schedulers.deis import DEISScheduler as DEISScheduler
    from latentdiff.schedulers.dpmpp import DPMSolverPP2MScheduler as DPMSolverPP2MScheduler
    from latentdiff.schedulers.dpmpp import DPMSolverPP2MSDEScheduler as DPMSolverPP2MSDEScheduler
    from latentdiff.schedulers.er_sde import ERSDEScheduler as ERSDEScheduler
    from latentdiff.schedulers.euler import EulerAncestralScheduler as EulerAncestralScheduler
    from latentdiff.schedulers.euler import EulerScheduler as EulerScheduler
    from latentdiff.schedulers.flow_euler import FlowMatchEulerScheduler as FlowMatchEulerScheduler
    from latentdiff.schedulers.heun import HeunScheduler as HeunScheduler
    from latentdiff.schedulers.lcm import LCMScheduler as LCMScheduler
    from latentdiff.schedulers.plms import PLMSScheduler as PLMSScheduler
    from latentdiff.schedulers.restart import RestartScheduler as RestartScheduler
    from latentdiff.schedulers.sa_solver import SASolverScheduler as SASolverScheduler
    from latentdiff.schedulers.tcd import TCDScheduler as TCDScheduler
    from latentdiff.schedulers.unipc import UniPCScheduler as UniPCScheduler
    from latentdiff.tuning import save_tuned as save_tuned
    from latentdiff.tuning import tune_steps as tune_steps
    from latentdiff.windows import Windows as Windows
else:
    import importlib

    _EXPORTS = {
        # diffusers looks a third-party component's base class up in the top package of the component.
        "diffusers": ["ModelMixin", "SchedulerMixin"],
        "latentdiff.conditioning": ["Conditioning"],
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
        "latentdiff.guidance.auto": ["AutoGuidance"],
        "latentdiff.guidance.classifier": ["ClassifierGuidance"],
        "latentdiff.guidance.classifier_free": ["ClassifierFreeGuidance"],
        "latentdiff.guidance.image": ["ImageGuidance"],
        "latentdiff.guidance.plus_plus": ["CFGPlusPlus"],
        "latentdiff.guidance.projected": ["AdaptiveProjectedGuidance"],
        "latentdiff.models.autoencoder_fsq": ["FSQModel"],
        "latentdiff.models.autoencoder_rvq": ["ResidualVQModel"],
        "latentdiff.models.autoencoder_vq": ["VQModel"],
        "latentdiff.models.class_embedder": ["ClassEmbedder"],
        "latentdiff.models.classifier": ["NoisyLatentClassifier"],
        "latentdiff.models.layout_tokenizer": ["LayoutTokenizer"],
        "latentdiff.models.lpips": ["LPIPS", "PerceptualDistance"],
        "latentdiff.models.segmentation_encoder": ["SegmentationEncoder"],
        "latentdiff.models.text_encoder": ["LDMTextEncoder"],
        "latentdiff.models.tiny_decoder": ["TinyDecoder"],
        "latentdiff.models.unet": ["UNet2DConditionModel"],
        "latentdiff.pipelines.auto": ["AutoPipeline"],
        "latentdiff.pipelines.base": ["DiffusionPipeline"],
        "latentdiff.pipelines.class_to_image": ["ClassToImagePipeline"],
        "latentdiff.pipelines.image_to_image": ["ImageToImagePipeline"],
        "latentdiff.pipelines.hybrid": ["HybridPipeline"],
        "latentdiff.pipelines.inpaint": ["InpaintPipeline"],
        "latentdiff.pipelines.layout_to_image": ["LayoutToImagePipeline"],
        "latentdiff.pipelines.options": ["SamplingKeywords", "SamplingOptions"],
        "latentdiff.pipelines.outputs": ["ImagePipelineOutput"],
        "latentdiff.pipelines.semantic_to_image": ["SemanticToImagePipeline"],
        "latentdiff.pipelines.super_resolution": ["SuperResolutionPipeline"],
        "latentdiff.pipelines.text_to_image": ["TextToImagePipeline"],
        "latentdiff.pipelines.unconditional": ["UnconditionalPipeline"],
        "latentdiff.registry": ["load_plugins"],
        "latentdiff.schedulers.ddim": ["DDIMScheduler"],
        "latentdiff.schedulers.ddpm": ["DDPMScheduler"],
        "latentdiff.schedulers.deis": ["DEISScheduler"],
        "latentdiff.schedulers.dpmpp": ["DPMSolverPP2MScheduler", "DPMSolverPP2MSDEScheduler"],
        "latentdiff.schedulers.er_sde": ["ERSDEScheduler"],
        "latentdiff.schedulers.euler": ["EulerAncestralScheduler", "EulerScheduler"],
        "latentdiff.schedulers.flow_euler": ["FlowMatchEulerScheduler"],
        "latentdiff.schedulers.heun": ["HeunScheduler"],
        "latentdiff.schedulers.lcm": ["LCMScheduler"],
        "latentdiff.schedulers.tcd": ["TCDScheduler"],
        "latentdiff.schedulers.plms": ["PLMSScheduler"],
        "latentdiff.schedulers.restart": ["RestartScheduler"],
        "latentdiff.schedulers.sa_solver": ["SASolverScheduler"],
        "latentdiff.schedulers.unipc": ["UniPCScheduler"],
        "latentdiff.tuning": ["save_tuned", "tune_steps"],
        "latentdiff.windows": ["Windows"],
    }
    _MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
    __all__ = sorted(_MODULE_OF)  # noqa: PLE0605

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'latentdiff' has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return __all__
