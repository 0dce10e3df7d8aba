"""Pipelines from the hub."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from latentdiff.errors import CheckpointError, HubError
from latentdiff.hub import weight_files
from latentdiff.hub.errors import NETWORK_ERRORS, hub_errors
from latentdiff.hub.index import CARD, INDEX, check_own_code, is_inside, one_line, read_index

logger = logging.getLogger(__name__)

DOWNLOADS_AT_ONCE = 4


def fetch(
    name: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The local folder of a pipeline on the hub, downloaded as far as the cache lacks it.

    The first file decides the commit, and all others are of that commit, however the repository changes meanwhile.

    Raises:
        HubError: If the hub knows no such model or revision, refuses the token or can't be reached.
        CheckpointError: If the model's files are not those of a pipeline that can be loaded.
        ConfigError: If the model brings code of its own.
    """
    api = HfApi(token=token)
    inside = PurePosixPath(subfolder or ".").as_posix()
    prefix = "" if inside == "." else f"{inside}/"
    where: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
    with hub_errors(api, name, revision):
        index = Path(
            api.hf_hub_download(name, prefix + INDEX, revision=revision, force_download=force_download, **where)
        )
        folder = index.parent
        root = folder.parents[prefix.count("/") - 1] if prefix else folder
        there = _file_names(api, name, root, folder, local_files_only)
        wanted = _wanted(
            name, folder, [path.removeprefix(prefix) for path in there if path.startswith(prefix)], variant
        )

        def download(path: str) -> None:
            api.hf_hub_download(name, prefix + path, revision=root.name, force_download=force_download, **where)

        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            running = [pool.submit(download, path) for path in wanted]
            try:
                for future in as_completed(running):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what hasn't begun need not begin
                raise
    return folder


def _file_names(api: HfApi, name: str, root: Path, folder: Path, local_files_only: bool) -> list[str]:
    """Paths of all files of the commit; without a network, of those in the cache."""
    if local_files_only:
        return _cached_names(name, root, folder)
    try:
        names = [file.rfilename for file in api.model_info(name, revision=root.name).siblings or []]
    except NETWORK_ERRORS as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise  # the hub answered: it wants another token, or has the model no more
        if not isinstance(error, OfflineModeIsEnabled):
            logger.warning("%s: the hub cannot be reached (%s); the cache has to do", name, one_line(error))
        return _cached_names(name, root, folder)
    for path in names:
        if not is_inside(path):
            raise CheckpointError(f"{name} has a file {path!r}, which leads out of its folder; don't use the model")
    return names


def _cached_names(name: str, root: Path, folder: Path) -> list[str]:
    parts = read_index(folder).components.values()
    missing = [part.folder for part in parts if not (folder / part.folder).is_dir()]
    if missing:
        raise HubError(f"{name!r} is in the cache only in part (no {', '.join(missing)}); load it once with a network")
    return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]


def _wanted(name: str, folder: Path, there: list[str], variant: str | None) -> list[str]:
    """Of the paths in a pipeline's folder, those that are needed; refuses before anything big is downloaded."""
    check_own_code(name, there)
    index = read_index(folder)
    files = {
        part.folder: [
            path.split("/")[1] for path in there if path.count("/") == 1 and path.split("/")[0] == part.folder
        ]
        for part in index.components.values()
    }
    weight_files.check_variant(name, files, variant)
    wanted = [CARD] if CARD in there else []
    for component, names in files.items():
        small = [file for file in names if file.endswith(weight_files.SMALL_FILES) and weight_files.parse(file) is None]
        wanted += [f"{component}/{file}" for file in small + weight_files.weights(names, variant)]
    return wanted
