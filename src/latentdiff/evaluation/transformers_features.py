"""Features of networks of transformers, from a folder: CLIP's embeddings and DINOv2's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.errors import CheckpointError, ConfigError, one_line
from latentdiff.evaluation.features import BICUBIC, FeatureExtractor, bicubic
from latentdiff.evaluation.weights import sha256_of

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_SIDE = 224
VOCABULARY_FILES = ("tokenizer.json", "vocab.json")
PROMPT = "A photo depicts "  # what CLIPScore puts before each caption


class _Normalised(FeatureExtractor):
    """Base of the two: a network of a folder, the side of its images, and their mean and deviation."""

    resize = BICUBIC
    network: Any  # transformers' classes, which carry no types that hold here
    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, folder: Path, side: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(_identity(folder))
        self.network, self.side = network, side
        mean, std = _of_processor(folder, "image_mean", mean), _of_processor(folder, "image_std", std)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def _pixels(self, images: Tensor) -> Tensor:
        return (bicubic(images, self.side) - self.mean) / self.std


class DINOv2Features(_Normalised):
    """The class token (B, D) of a DINOv2 in a folder, of which FD-DINOv2 is made (Stein et al. 2023)."""

    @classmethod
    def load(cls, place: str | None = None) -> Self:
        """Load a folder with `config.json` and `model.safetensors` of a `Dinov2Model`."""
        from transformers import Dinov2Model

        folder = _folder("dinov2", place)
        network = _load(Dinov2Model, folder)
        features = cls(network, folder, DINO_SIDE, IMAGENET_MEAN, IMAGENET_STD)
        features.name, features.dims = f"dinov2-{folder.resolve().name}", {"pool": network.config.hidden_size}
        return features

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The features of images uint8 (B, 3, H, W), resized to 224 pixels."""
        return {"pool": self.network(self._pixels(images)).last_hidden_state[:, 0]}


class CLIPFeatures(_Normalised):
    """CLIP's image embeddings of unit length (B, D), of which CMMD and CLIPScore are made."""

    @classmethod
    def load(cls, place: str | None = None) -> Self:
        """Load a folder with the model and, for captions, the tokenizer of a `CLIPModel`."""
        from transformers import CLIPModel

        folder = _folder("clip", place)
        network = _load(CLIPModel, folder)
        features = cls(network, folder, network.config.vision_config.image_size, CLIP_MEAN, CLIP_STD)
        features.name, features.dims = f"clip-{folder.resolve().name}", {"pool": network.config.projection_dim}
        features.folder = folder
        return features

    folder: Path

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The embeddings of images uint8 (B, 3, H, W), resized to the network's size."""
        states = self.network.vision_model(pixel_values=self._pixels(images)).pooler_output
        return {"pool": F.normalize(self.network.visual_projection(states), dim=1)}

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str], at_once: int = 64) -> Tensor:
        """The embeddings of captions, of unit length: (len(texts), D) on the CPU. What is too long is cut off.

        Raises:
            CheckpointError: If the folder has no tokenizer.
        """
        from transformers import CLIPTokenizer

        try:
            if not any((self.folder / name).is_file() for name in VOCABULARY_FILES):
                # Without this, transformers would make an empty one.
                raise OSError(f"it has neither {' nor '.join(VOCABULARY_FILES)}")
            tokenizer = CLIPTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{self.folder} has no tokenizer for captions ({one_line(error)}); add it") from None
        found = []
        for start in range(0, len(texts), at_once):
            batch = tokenizer(
                [PROMPT + text for text in texts[start : start + at_once]],
                padding=True,
                truncation=True,
                max_length=self.network.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.device)
            states = self.network.text_model(**batch).pooler_output
            found.append(F.normalize(self.network.text_projection(states), dim=1).cpu())
        return torch.cat(found)


def _folder(name: str, place: str | None) -> Path:
    """The folder that is named; its weights must be data."""
    if place is None:
        raise ConfigError(f"the features {name} need a folder of transformers; give it as {name}:FOLDER")
    folder = Path(place)
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder} has no {file}; {name}:FOLDER needs a folder that transformers saved")
    return folder


def _load(kind: Any, folder: Path) -> Any:
    try:
        network, report = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds no {kind.__name__} ({one_line(error)}); give another folder") from None
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(f"{folder} lacks {missing[0]} of a {kind.__name__}; give another folder")
    return network


def _identity(folder: Path) -> str:
    """A hash of all that the features depend on."""
    names = ("config.json", "preprocessor_config.json", "model.safetensors")
    hashes = [sha256_of(folder / name) for name in names if (folder / name).is_file()]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _of_processor(folder: Path, name: str, usual: Sequence[float]) -> Sequence[float]:
    """What the folder says of the images' mean or deviation, for red, green and blue."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return usual
    try:
        found: Sequence[float] = json.loads(path.read_text(encoding="utf-8")).get(name, usual)
        if len(found) != 3 or not all(isinstance(value, (int, float)) for value in found):
            raise ValueError(f"{name} is {found!r}")
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} can't be used ({one_line(error)}); {name} must be three numbers") from None
    return found
