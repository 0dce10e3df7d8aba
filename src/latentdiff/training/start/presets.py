"""Sizes of networks to begin with: a table, and what of it fits a number of images and a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from latentdiff.config import check
from latentdiff.registry import nearest
from latentdiff.types import JSON

SHARE = 0.8  # of the memory that a run may plan with


@dataclass(frozen=True)
class Needs:
    """What a stage takes, as `latentdiff train STAGE RECIPE --dry-run` printed it in fp32.

    Attributes:
        parameters: Parameters that are trained, in millions.
        fixed: Weights, gradients, the optimiser's moments and the average, in GiB.
        image: Activations of each image of a batch at the preset's resolution, in GiB.
    """

    parameters: float
    fixed: float
    image: float


@dataclass(frozen=True)
class StagePreset:
    """One stage at one size.

    Attributes:
        network: The constructor arguments of its network, as the recipe has them.
        batch: Images in a step.
        steps: Steps of a run.
        learning_rate: That of AdamW.
        ema: Decay of the averaged weights.
        needs: What it takes.
        loss: The part `loss` of the recipe.
    """

    network: JSON
    batch: int
    steps: int
    learning_rate: float
    ema: float
    needs: Needs
    loss: JSON = field(default_factory=dict)

    def micro_batch(self, memory: float, pixels: float) -> int:
        """The largest part of the batch, a power of two of which it is a multiple, that fits; 0 if not one image does.

        Args:
            memory: Of the device, in GiB.
            pixels: Pixels of an image, relative to the preset's.
        """
        room = (SHARE * memory - self.needs.fixed) / (self.needs.image * pixels)
        fitting = [size for size in (self.batch // 2**n for n in range(7)) if 1 <= size <= room]
        return fitting[0] if fitting else 0


@dataclass(frozen=True)
class Preset:
    """A size of both stages.

    Attributes:
        name: What it is called.
        images: From how many images on it is proposed.
        accelerator: Whether it is proposed for machines with an accelerator alone.
        resolution: Side of its images in pixels, at most.
        first_stage: The autoencoder.
        diffusion: The UNet.
        context: Width of what the UNet is conditioned on.
        context_layers: Layers of the transformer that reads captions or layouts.
        noise_schedule: The part `noise_schedule` of the recipe.
    """

    name: str
    images: int
    accelerator: bool
    resolution: int
    first_stage: StagePreset
    diffusion: StagePreset
    context: int
    context_layers: int
    noise_schedule: JSON


def _kl(channels: Sequence[int], layers: int, latent_channels: int, groups: int = 32) -> JSON:
    return {
        "block_out_channels": [*channels],
        "layers_per_block": layers,
        "latent_channels": latent_channels,
        "norm_num_groups": groups,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
    }


def _unet(channels: Sequence[int], layers: int, attention: Sequence[bool]) -> JSON:
    return {
        "block_out_channels": [*channels],
        "layers_per_block": layers,
        "attention_levels": [*attention],
        "num_head_channels": 32,
    }


PAPER_SCHEDULE: JSON = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195}
V_SCHEDULE: JSON = {**PAPER_SCHEDULE, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}

# The first three are modelled on recipes/emoji and examples/; the last is celeba256 of recipes/paper without the losses
# whose weights have to be downloaded. `python -m benchmarks presets` prints what stands in `Needs` (the last
# two by --resolution 128).
PRESETS = (
    Preset(
        name="tiny",
        images=0,
        accelerator=False,
        resolution=64,
        first_stage=StagePreset(
            network=_kl((32, 64, 128), 1, 4, groups=8),
            batch=16,
            steps=2000,
            learning_rate=6e-4,
            ema=0.995,
            needs=Needs(2.7, 0.050, 0.026),
            loss={"reconstruction": "l1", "kl_weight": 6e-4},
        ),
        diffusion=StagePreset(
            network=_unet((64, 128, 128), 1, (False, True, True)),
            batch=32,
            steps=4000,
            learning_rate=6e-4,
            ema=0.998,
            needs=Needs(4.6, 0.096, 0.004),
        ),
        context=128,
        context_layers=2,
        noise_schedule=V_SCHEDULE,
    ),
    Preset(
        name="small",
        images=2000,
        accelerator=True,
        resolution=128,
        first_stage=StagePreset(
            network=_kl((64, 128, 256), 1, 4),
            batch=16,
            steps=20_000,
            learning_rate=2e-4,
            ema=0.999,
            needs=Needs(10.8, 0.200, 0.204),
            loss={"reconstruction": "l1", "kl_weight": 1e-5},
        ),
        diffusion=StagePreset(
            network=_unet((128, 256, 384), 2, (False, True, True)),
            batch=64,
            steps=40_000,
            learning_rate=2e-4,
            ema=0.9995,
            needs=Needs(42.9, 0.838, 0.048),
        ),
        context=256,
        context_layers=4,
        noise_schedule=V_SCHEDULE,
    ),
    Preset(
        name="base",
        images=10_000,
        accelerator=True,
        resolution=256,
        first_stage=StagePreset(
            network=_kl((96, 192, 384, 384), 2, 4),
            batch=16,
            steps=60_000,
            learning_rate=1e-4,
            ema=0.9995,
            needs=Needs(47.1, 0.877, 1.601),
            loss={"reconstruction": "l1", "kl_weight": 1e-6},
        ),
        diffusion=StagePreset(
            network=_unet((160, 320, 640), 2, (False, True, True)),
            batch=64,
            steps=150_000,
            learning_rate=1e-4,
            ema=0.9999,
            needs=Needs(100.2, 2.042, 0.064),
        ),
        context=512,
        context_layers=8,
        noise_schedule=V_SCHEDULE,
    ),
    Preset(
        name="paper",
        images=25_000,
        accelerator=True,
        resolution=256,
        first_stage=StagePreset(
            network={"_class_name": "VQModel", **_kl((128, 256, 512), 2, 3), "num_vq_embeddings": 8192},
            batch=8,
            steps=500_000,
            learning_rate=3.6e-5,
            ema=0.9999,
            needs=Needs(55.3, 1.030, 2.413),
            loss={"reconstruction": "l1", "codebook": {"loss": "corrected"}},
        ),
        diffusion=StagePreset(
            network=_unet((224, 448, 672, 896), 2, (False, True, True, True)),
            batch=48,
            steps=410_000,
            learning_rate=9.6e-5,
            ema=0.9999,
            needs=Needs(274.1, 5.311, 0.348),
        ),
        context=640,
        context_layers=16,
        noise_schedule=PAPER_SCHEDULE,
    ),
)
BY_NAME = {preset.name: preset for preset in PRESETS}


def preset_called(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ConfigError: If there is none.
    """
    check(name in BY_NAME, f"size is {name!r}; {nearest(name, BY_NAME)}")
    return BY_NAME[name]


def fitting_preset(images: int, memory: float, accelerator: bool) -> Preset:
    """The largest preset that a number of images and a machine are enough for; the smallest where none is.

    Args:
        images: Images to train on.
        memory: Memory of the device in GiB.
        accelerator: Whether that is an accelerator.
    """

    def fits(preset: Preset) -> bool:
        stages = (preset.first_stage, preset.diffusion)
        enough = images >= preset.images and accelerator >= preset.accelerator
        return enough and all(stage.micro_batch(memory, 1.0) for stage in stages)

    return next(filter(fits, reversed(PRESETS)), PRESETS[0])
