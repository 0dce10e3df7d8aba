"""The states of all captions by a text encoder that isn't trained, computed once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from latentdiff.data.latent_cache import weights_fingerprint
from latentdiff.io.files import atomic_file
from latentdiff.io.mapped import Mapped, MappedArray, create_mapped
from latentdiff.models.text_encoder import LDMTextEncoder

BATCH = 64


def encode_ids(encoder: LDMTextEncoder, ids: torch.Tensor) -> torch.Tensor:
    """The states (B, L, d) of token ids (B, L), on the device of the ids; the encoder stays where it is."""
    states: torch.Tensor = encoder(ids.to(encoder.device)).last_hidden_state
    return states.to(ids.device)


@torch.no_grad()
def cached_states(folder: Path, encoder: LDMTextEncoder, ids: torch.Tensor) -> MappedArray[np.float16]:
    """The states of all captions, read from disk as they are needed.

    Args:
        folder: Holds the cache, a file whose name changes with the encoder's weights and the captions.
        encoder: Works on the device of the run, and comes back.
        ids: Token ids (N, L).

    Returns:
        (N, L, d), float16.

    Raises:
        InputError: If the disk has no space for it.
    """
    digest = hashlib.sha256(weights_fingerprint(encoder).encode() + ids.numpy().tobytes()).hexdigest()
    path, process = folder / f"{digest[:32]}.npy", PartialState()
    with process.main_process_first():
        cache = _whole_cache(path, len(ids))
        if cache is None:
            device = encoder.device
            encoder.to(process.device)
            with atomic_file(path) as aside:
                rows: Mapped[np.float16] | None = None
                for start in tqdm(range(0, len(ids), BATCH), desc="encoding captions"):
                    states = encode_ids(encoder, ids[start : start + BATCH]).float().cpu().numpy()
                    if rows is None:
                        rows = create_mapped(aside, np.float16, (len(ids), *states.shape[1:]))
                    rows[start : start + len(states)] = states
                assert rows is not None
                rows.flush()
                del rows  # Windows renames no file that is mapped
            encoder.to(device)
            cache = MappedArray(path)
    return cache


def _whole_cache(path: Path, captions: int) -> MappedArray[np.float16] | None:
    """The cache in a file; None if there is none, or it is cut off or of others, so that it has to be made anew."""
    try:
        cache: MappedArray[np.float16] = MappedArray(path)
    except (OSError, ValueError):
        return None
    return cache if len(cache.rows) == captions and cache.rows.dtype == np.float16 else None
