"""Saving a pipeline to a folder and to the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypedDict

from huggingface_hub import CommitInfo, ModelCard
from typing_extensions import Unpack

from latentdiff.hub import save as saving
from latentdiff.hub.card import model_card
from latentdiff.hub.index import CARD
from latentdiff.hub.upload import upload
from latentdiff.nn.int8 import check_whole


class UploadOptions(TypedDict, total=False):
    """Options of `push_to_hub`, which describes them."""

    private: bool | None
    token: str | bool | None
    revision: str | None
    create_pr: bool
    commit_message: str | None
    subfolder: str | None


class PublishingMixin:
    """`save_pretrained` and `push_to_hub` of a diffusers pipeline, written whole and with a model card of ours."""

    components: dict[str, Any]

    def save_pretrained(
        self,
        save_directory: str | Path,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        *,
        safe_serialization: bool = True,
        card: ModelCard | None = None,
        repo_id: str | None = None,
        **hub: Unpack[UploadOptions],
    ) -> None:
        """Write the pipeline's folder, safetensors and a model card; an interruption leaves what was there before.

        Files of a pipeline that was there stay if this one has none in their place, such as other variants.

        Args:
            save_directory: A new or empty folder, or one of a pipeline.
            variant: A word for the names of the weight files, such as "fp16" or "ema".
            max_shard_size: The size above which weights are split into several files, such as "5GB".
            push_to_hub: Whether to upload the folder, too.
            safe_serialization: An option of diffusers that can only be True here: weights are never pickled.
            card: The README.md, as from `model_card`. Without, one that is there stays, else one is generated.
            repo_id: Where to upload; the folder's name by default.
            **hub: Options of `push_to_hub`.

        Raises:
            ConfigError: If weights are int8, which no other program reads.
            InputError: If the folder can't be written or is another thing than a pipeline's, or an option has no
                effect.
            HubError: If the upload fails; the folder is written then.
        """
        given = hub if repo_id is None else {**hub, "repo_id": repo_id}
        saving.check_save_options(variant, safe_serialization, push_to_hub, given)
        for name, component in self.components.items():
            check_whole(name, component, "which can't be saved; load it without quantize")
        path = saving.check_target(save_directory)
        kept = card is None and (path / CARD).exists()

        def write(folder: Path) -> None:
            super(PublishingMixin, self).save_pretrained(  # type: ignore[misc]
                str(folder), safe_serialization=True, variant=variant, max_shard_size=max_shard_size
            )
            saving.drop_origins(folder)
            if not kept:
                (card or model_card(self)).save(folder / CARD)

        saving.write_folder(path, self.components, variant, write)
        if push_to_hub:
            self._upload(path, repo_id or path.name, variant, hub, generate_card=card is None and not kept)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        subfolder: str | None = None,
        card: ModelCard | None = None,
    ) -> CommitInfo:
        """Upload the pipeline as one commit.

        Args:
            repo_id: "owner/name", or "name" for the token's owner; the repository is made if need be.
            private: Whether a new repository is private; the owner's default if None.
            token: The token for the hub; the stored one if None.
            revision: A branch, which is made if need be.
            create_pr: Whether to open a pull request instead of committing to the main branch.
            commit_message: The message of the commit.
            variant: A word for the names of the weight files; other variants in the repository stay.
            max_shard_size: The size above which weights are split into several files, such as "5GB".
            subfolder: Where in the repository the pipeline goes.
            card: The README.md, as from `model_card`. Without, one that is there stays, else one is generated.

        Returns:
            huggingface_hub's `CommitInfo`: `oid`, `commit_url`, and `pr_url` of a pull request.

        Raises:
            HubError: If the hub refuses the token or can't be reached.
            InputError: If both a revision and a pull request are asked for.
        """
        hub = UploadOptions(
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            subfolder=subfolder,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, repo_id.rsplit("/", maxsplit=1)[-1])
            self.save_pretrained(path, variant, max_shard_size, card=card)
            return self._upload(path, repo_id, variant, hub, generate_card=card is None)

    def _upload(
        self, path: Path, repo_id: str, variant: str | None, hub: UploadOptions, *, generate_card: bool
    ) -> CommitInfo:
        def generated(name: str) -> str:
            return str(model_card(self, repo_id=name, subfolder=hub.get("subfolder")))

        hub["commit_message"] = hub.get("commit_message") or f"Upload {type(self).__name__}"
        return upload(
            path,
            repo_id,
            is_replaced=lambda file: saving.is_replaced(file, self.components, variant),
            generated_card=generated if generate_card else None,
            **hub,
        )
