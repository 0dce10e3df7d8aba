"""The registries: names of schedulers, pipelines, degradations, masks, metrics and the like, with what they name.

Files hold names of a registry and never import paths, so loading a model runs no code that it brings.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from latentdiff.errors import ConfigError
from latentdiff.tasks import TASKS
from latentdiff.types import Degradation, MaskGenerator

if TYPE_CHECKING:
    from torch import Tensor

Entry = TypeVar("Entry")
MAX_LISTED = 20  # names in a message


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: its nearest neighbours or else the known names."""
    text, known = str(name), sorted(known)
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    close = close or [entry for entry in known if text and text.lower() in entry.lower()][:3]
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    more = f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
    return f"known: {', '.join(known[:MAX_LISTED]) or 'none'}{more}"


class Registry(Generic[Entry]):
    """A table from names to entries of one kind.

    Args:
        kind: The word for an entry in messages, such as "scheduler".
        builtin: The package's own entries: names to "module:attribute", which is imported when it is first needed.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._builtin = dict(builtin or {})
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that adds an entry.

        Raises:
            ConfigError: When it is applied, if the name is taken.
        """

        def add(entry: Entry) -> Entry:
            if name in self:
                raise ConfigError(f"{self.kind} {name!r} is registered already; choose another name")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> Entry:
        """The entry called `name`.

        Raises:
            ConfigError: If the name is unknown; the message has its nearest neighbours.
        """
        if name not in self._entries:
            if name not in self._builtin:
                raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(name, self.names())}")
            module, attribute = self._builtin[name].split(":")
            self._entries[name] = getattr(importlib.import_module(module), attribute)
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted. Nothing is imported for it."""
        return sorted({*self._builtin, *self._entries})

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entries


def load_plugins() -> list[str]:
    """Import the installed plugins, the entry-point group `latentdiff.plugins`, and return the names in that group."""
    import importlib.metadata  # takes a tenth of the time of `latentdiff --help`

    points = list(importlib.metadata.entry_points(group="latentdiff.plugins"))
    for point in points:
        point.load()
    return [point.name for point in points]


SCHEDULERS: Registry[type] = Registry(
    "scheduler",
    {
        "ddpm": "latentdiff.schedulers.ddpm:DDPMScheduler",
        "ddim": "latentdiff.schedulers.ddim:DDIMScheduler",
        "plms": "latentdiff.schedulers.plms:PLMSScheduler",
        "euler": "latentdiff.schedulers.euler:EulerScheduler",
        "euler_ancestral": "latentdiff.schedulers.euler:EulerAncestralScheduler",
        "heun": "latentdiff.schedulers.heun:HeunScheduler",
        "dpmpp_2m": "latentdiff.schedulers.dpmpp:DPMSolverPP2MScheduler",
        "dpmpp_2m_sde": "latentdiff.schedulers.dpmpp:DPMSolverPP2MSDEScheduler",
        "unipc": "latentdiff.schedulers.unipc:UniPCScheduler",
        "deis": "latentdiff.schedulers.deis:DEISScheduler",
        "sa_solver": "latentdiff.schedulers.sa_solver:SASolverScheduler",
        "er_sde": "latentdiff.schedulers.er_sde:ERSDEScheduler",
        "restart": "latentdiff.schedulers.restart:RestartScheduler",
        "lcm": "latentdiff.schedulers.lcm:LCMScheduler",
        "tcd": "latentdiff.schedulers.tcd:TCDScheduler",
    },
)

PIPELINES: Registry[type] = Registry("pipeline", {name: spec.pipeline for name, spec in TASKS.items()})

DEGRADATIONS: Registry[Degradation] = Registry(
    "degradation",
    {
        "bicubic": "latentdiff.data.degradations.resize:bicubic",
        "bsr": "latentdiff.data.degradations.bsr:BSR_FULL",
        "bsr_light": "latentdiff.data.degradations.bsr:BSR_LIGHT",
        "bsrgan": "latentdiff.data.degradations.bsr:BSR_FULL",  # the names of the latent diffusion code
        "bsrgan_light": "latentdiff.data.degradations.bsr:BSR_LIGHT",
        **{
            name: f"latentdiff.data.degradations.filters:{name.upper()}"
            for name in (
                *(f"cv_{kind}" for kind in ("nearest", "bilinear", "bicubic", "area", "lanczos")),
                *(f"pil_{kind}" for kind in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")),
            )
        },
    },
)

SOURCES: Registry[Any] = Registry(
    "source of data",
    {
        "ade20k": "latentdiff.data.sources.ade20k:read_ade20k",
        "celebahq": "latentdiff.data.sources.lists:read_list",
        "coco": "latentdiff.data.sources.coco:read_coco_folder",
        "coco-stuff": "latentdiff.data.sources.coco:read_coco_stuff",
        "ffhq": "latentdiff.data.sources.lists:read_list",
        "imagenet": "latentdiff.data.sources.imagenet:read_imagenet",
        "laion": "latentdiff.data.sources.laion:read_laion",
        "lsun": "latentdiff.data.sources.lists:read_list",
        "open-images": "latentdiff.data.sources.open_images:read_open_images",
    },
)
"""Functions of `DataOptions`, and of settings as keywords, that return `latentdiff.data.records.Records`."""

MASKS: Registry[MaskGenerator] = Registry(
    "mask generator",
    {
        "box": "latentdiff.data.masks:BOX",
        "medium": "latentdiff.data.masks:MEDIUM",
        "segment": "latentdiff.data.masks:SEGMENT",
        "thick": "latentdiff.data.masks:THICK",
        "thin": "latentdiff.data.masks:THIN",
    },
)

CONDITIONERS: Registry[Any] = Registry(
    "conditioning", {name: spec.conditioner for name, spec in TASKS.items() if spec.conditioner is not None}
)

METRICS: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry(
    "metric",
    {"psnr": "latentdiff.evaluation.metrics:psnr", "ssim": "latentdiff.evaluation.metrics:ssim"},
)
"""Metrics of images and targets, both (B, C, H, W) in [0, 1]; each returns a number for every image, (B,)."""

FEATURE_EXTRACTORS: Registry[Any] = Registry(
    "feature extractor",
    {
        "clip": "latentdiff.evaluation.transformers_features:CLIPFeatures",
        "dinov2": "latentdiff.evaluation.transformers_features:DINOv2Features",
        "efficientnet_lite0": "latentdiff.evaluation.efficientnet:EfficientNetFeatures",
        "inception": "latentdiff.evaluation.inception:InceptionFeatures",
        "vgg16": "latentdiff.evaluation.vgg:VGGFeatures",
    },
)
"""Subclasses of `FeatureExtractor`; what stands after the colon of a name is given to `load`."""
