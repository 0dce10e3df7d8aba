"""Uploads of pipelines to the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from latentdiff.errors import InputError
from latentdiff.hub.confinement import check_link
from latentdiff.hub.errors import hub_errors
from latentdiff.hub.index import CARD, is_inside


def upload(
    folder: Path,
    repo_id: str,
    *,
    subfolder: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    is_replaced: Callable[[str], bool],
    generated_card: Callable[[str], str] | None,
) -> CommitInfo:
    """Put a folder onto the hub as one commit.

    Args:
        folder: The folder to upload.
        repo_id: "owner/name", or "name" for a model of the token's owner; the repository is made if need be.
        subfolder: Where in the repository the files go.
        private: Whether a new repository is private; the owner's default if None.
        token: The token for the hub; the stored one if None.
        revision: A branch, which is made if need be.
        create_pr: Whether to open a pull request against the default branch instead of committing to it.
        commit_message: The message of the commit.
        is_replaced: A function that says of a path in the pipeline's folder whether new weights take the place of that
            file. Such files of the repository are deleted, as shards of the weights before have to be.
        generated_card: A function that makes the text of a model card for the full name of the repository. It is
            called if the repository has none; without it, the card in the folder is uploaded.

    Returns:
        What the client says of the commit.

    Raises:
        CheckpointError: If a file of the folder is a link that leads out of it.
        HubError: If the hub refuses the token or can't be reached.
        InputError: If both a revision and a pull request are asked for, or the subfolder leads out.
    """
    if create_pr and revision not in (None, "main"):
        raise InputError(f"revision {revision!r} and create_pr are both given; a pull request is to main, drop one")
    if subfolder is not None and not is_inside(subfolder):
        raise InputError(f"subfolder is {subfolder!r}; it must be a path inside the repository, such as 'small'")
    api = HfApi(token=token)
    with hub_errors(api, repo_id, revision):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision not in (None, "main") and not str(revision).startswith("refs/"):
            api.create_branch(repo_id, branch=str(revision), exist_ok=True)
        base = None if create_pr else revision
        there = api.list_repo_files(repo_id, revision=base)
        prefix = "" if subfolder is None else f"{PurePosixPath(subfolder).as_posix()}/"
        paths: dict[str, Path | bytes] = {prefix + p.relative_to(folder).as_posix(): p for p in _files(folder)}
        if generated_card is not None:
            paths[prefix + CARD] = generated_card(repo_id).encode()
            if prefix + CARD in there:
                del paths[prefix + CARD]
        old = [path for path in there if path.startswith(prefix) and path not in paths]
        stale = [path for path in old if is_replaced(path.removeprefix(prefix))]
        operations = [CommitOperationDelete(path) for path in stale]
        operations += [CommitOperationAdd(path, content) for path, content in paths.items()]
        # The client's own upload of a folder makes several commits of a large one, between which it is no model.
        return api.create_commit(
            repo_id,
            operations,
            commit_message=commit_message or f"Upload {folder.name}",
            revision=revision,
            create_pr=create_pr,
        )


def _files(folder: Path) -> list[Path]:
    hidden = {".git", ".cache"}
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    shown = [path for path in paths if not hidden & set(path.relative_to(folder).parts)]
    for path in shown:
        check_link(
            folder, path
        )  # a model that was got from somewhere may have links to files that are nobody's business
    return shown
