"""First stage: the autoencoder that makes the latent space (section 3.1 of the paper)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.utils.torch_utils import randn_tensor

from latentdiff.data.folder import ImageFolder
from latentdiff.errors import ConfigError
from latentdiff.io.files import atomic_folder, check_writable
from latentdiff.training.loop import make_accelerator, train
from latentdiff.training.recipes import FirstStageRecipe
from latentdiff.training.task import Task


class FirstStageTask(Task):
    """Reconstruction plus a slight KL pull of the posterior towards N(0, 1).

    Args:
        vae: Encodes images (B, 3, H, W) in [-1, 1].
        recipe: Gives the weights of the terms.
    """

    def __init__(self, vae: AutoencoderKL, recipe: FirstStageRecipe) -> None:
        super().__init__()
        self.vae = vae
        self.kl_weight = recipe.kl_weight
        self.distance = {"l1": torch.nn.functional.l1_loss, "l2": torch.nn.functional.mse_loss}[recipe.reconstruction]

    def forward(self, batch: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of images (B, 3, H, W)."""
        posterior = self.vae.encode(batch).latent_dist
        noise = randn_tensor(posterior.mean.shape, generator=rng, device=batch.device)
        decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample.float()
        distance = self.distance(decoded, batch)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean()
        values = {"reconstruction": distance.detach(), "kl": kl.detach()}
        return distance + self.kl_weight * kl, values

    def export(self, folder: Path) -> None:
        """Write the autoencoder as `folder/vae`."""
        with atomic_folder(folder / "vae") as aside:
            self.vae.save_pretrained(aside)


def make_vae(model: dict[str, Any]) -> AutoencoderKL:
    """A new autoencoder from constructor arguments, or a trained one to go on with.

    Raises:
        ConfigError: On an argument that AutoencoderKL doesn't take.
    """
    if set(model) == {"pretrained_model_name_or_path"}:
        return AutoencoderKL.from_pretrained(model["pretrained_model_name_or_path"])
    try:
        return AutoencoderKL(**model)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model does not fit AutoencoderKL ({error}); see its documentation") from None


def train_first_stage(recipe: FirstStageRecipe) -> Path:
    """Train a KL autoencoder on a folder of images; returns the output folder, which holds `vae/`."""
    check_writable(Path(recipe.output_dir) / "vae")
    accelerator = make_accelerator(recipe)
    torch.manual_seed(recipe.seed)
    task = FirstStageTask(make_vae(recipe.model), recipe)
    return train(task, ImageFolder(recipe.train_data_dir, recipe.resolution), recipe, accelerator)
