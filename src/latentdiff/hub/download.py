"""Downloads of pipelines from the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypedDict, TypeVar

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx

from latentdiff.errors import CheckpointError, HubError, one_line
from latentdiff.hub import weight_files
from latentdiff.hub.component_folder import TOKENIZER_CONFIG
from latentdiff.hub.errors import NETWORK_ERRORS, hub_errors
from latentdiff.hub.index import CARD, INDEX, check_own_code, is_inside, read_index

logger = logging.getLogger(__name__)

DOWNLOADS_AT_ONCE = 4
SMALL_FILES = (".json", ".txt", ".model")
ATTEMPTS = 3

Answer = TypeVar("Answer")


class HubOptions(TypedDict, total=False):
    """Options of `fetch`, which describes them."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


def fetch(
    name: str,
    *,
    subfolder: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Download a pipeline as far as the cache lacks it.

    The first file decides the commit, and all others are of that commit, however the repository changes meanwhile.

    Args:
        name: The name of the repository, "owner/name".
        subfolder: Where in the repository the pipeline lies.
        variant: The variant of the weights to fetch.
        revision: A branch, tag, commit or "refs/pr/1"; the default branch if None.
        token: The token for the hub; the stored one if None.
        cache_dir: Where downloads are kept; the hub's cache if None.
        local_files_only: Whether to use only what is in the cache, and not ask the hub.
        force_download: Whether to fetch again what is in the cache.

    Returns:
        The pipeline's folder in the cache.

    Raises:
        HubError: If the hub knows no such model or revision, refuses the token or can't be reached.
        CheckpointError: If the model's files are not those of a pipeline that can be loaded.
        ConfigError: If the model brings code of its own.
    """
    api = HfApi(token=token)
    inside = PurePosixPath(subfolder or ".").as_posix()
    prefix = "" if inside == "." else f"{inside}/"

    def download(path: str, revision: str | None) -> Path:
        found = _answer(
            lambda: api.hf_hub_download(
                name,
                prefix + path,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )
        return Path(found)

    with hub_errors(api, name, revision):
        folder = download(INDEX, revision).parent
        commit = folder.parents[prefix.count("/") - 1].name if prefix else folder.name
        files = None if local_files_only else _file_names(api, name, commit)
        if files is None:
            _check_cached(name, folder)
            return folder
        wanted = _wanted(
            name, folder, [path.removeprefix(prefix) for path in files if path.startswith(prefix)], variant
        )
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            running = [pool.submit(download, path, commit) for path in wanted]
            try:
                for future in as_completed(running):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what hasn't begun need not begin
                raise
    return folder


def fetch_adapter(
    name: str,
    *,
    weight_name: str | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Download the file of an adapter, unless it is in the cache.

    Args:
        name: The name of the repository, "owner/name".
        weight_name: The name of the file; it is looked for if None, and without a network is the usual one.
        subfolder: Where in the repository the file lies.
        revision: A branch, tag, commit or "refs/pr/1"; the default branch if None.
        token: The token for the hub; the stored one if None.
        cache_dir: Where downloads are kept; the hub's cache if None.
        local_files_only: Whether to use only what is in the cache, and not ask the hub.
        force_download: Whether to fetch again what is in the cache.

    Raises:
        HubError: If the hub knows no such model or revision, refuses the token or can't be reached.
        CheckpointError: If the repository holds no adapter, or several.
    """
    api = HfApi(token=token)
    prefix = f"{PurePosixPath(subfolder).as_posix()}/" if subfolder else ""
    with hub_errors(api, name, revision):
        if weight_name is None and not local_files_only and not constants.HF_HUB_OFFLINE:
            info = _answer(lambda: api.model_info(name, revision=revision))
            paths = [file.rfilename for file in info.siblings or []]
            weight_name = weight_files.choose_adapter(
                name, [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
            )
            revision = info.sha
        path = prefix + (weight_name or weight_files.ADAPTER)
        found = _answer(
            lambda: api.hf_hub_download(
                name,
                path,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )
    return Path(found)


def fetch_component(name: str, config: str = "config.json", part: str | None = None) -> Path:
    """Download a component, unless it is in the cache: its small files and its weights.

    Args:
        name: The name of the repository, "owner/name".
        config: The name of the component's configuration, which is fetched first and decides the commit.
        part: The folder in which it lies if the repository is a whole pipeline; None if it may be none.

    Returns:
        The folder that holds the files.

    Raises:
        HubError: If the hub knows no such model, or can't be reached.
        CheckpointError: If it holds no such component.
    """
    api, prefix = HfApi(), ""
    with hub_errors(api, name, None):
        try:
            folder = Path(_answer(lambda: api.hf_hub_download(name, config))).parent
            commit = folder.name
        except EntryNotFoundError:
            if part is None:
                raise
            prefix = f"{part}/"
            folder = Path(_answer(lambda: api.hf_hub_download(name, prefix + config))).parent
            commit = folder.parent.name
        paths = _file_names(api, name, commit) or []
        names = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
        names = [path for path in names if "/" not in path]
        small = [path for path in names if path.endswith(SMALL_FILES) and weight_files.parse(path) is None]
        for path in small + (weight_files.weights(names, None) if config != TOKENIZER_CONFIG else []):
            _answer(partial(api.hf_hub_download, name, prefix + path, revision=commit))
    return folder


def _answer(ask: Callable[[], Answer]) -> Answer:
    """What the hub answers, asked again where it closed a kept connection just as the request went out on it.

    The client resumes a broken download by itself, but a request that was never answered fails at once.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return ask()
        except httpx.RemoteProtocolError as error:
            logger.info("the hub closed the connection (%s); it is asked again", one_line(error))
    return ask()


def _file_names(api: HfApi, name: str, commit: str) -> list[str] | None:
    """The paths of all files of the commit; None without a network, when the cache has to do."""
    try:
        info = _answer(lambda: api.model_info(name, revision=commit))
    except NETWORK_ERRORS as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise  # the hub answered: it wants another token, or has the model no more
        if not isinstance(error, OfflineModeIsEnabled):
            logger.warning("%s: the hub cannot be reached (%s); the cache has to do", name, one_line(error))
        return None
    names = [file.rfilename for file in info.siblings or []]
    for path in names:
        if not is_inside(path):
            raise CheckpointError(f"{name} has a file {path!r}, which leads out of its folder; don't use the model")
    return names


def _check_cached(name: str, folder: Path) -> None:
    entries = read_index(folder).components.values()
    missing = [entry.folder for entry in entries if not (folder / entry.folder).is_dir()]
    if missing:
        raise HubError(f"{name!r} is in the cache only in part (no {', '.join(missing)}); load it once with a network")


def _wanted(name: str, folder: Path, paths: list[str], variant: str | None) -> list[str]:
    """Of the paths in a pipeline's folder, those that are needed; refuses before anything big is downloaded."""
    check_own_code(name, paths)
    index = read_index(folder)
    files: dict[str, list[str]] = {entry.folder: [] for entry in index.components.values()}
    for path in paths:
        component, _, file = path.partition("/")
        if component in files and file and "/" not in file:
            files[component].append(file)
    weight_files.check_variant(name, files, variant)
    wanted = [CARD] if CARD in paths else []
    for component, names in files.items():
        small = [file for file in names if file.endswith(SMALL_FILES) and weight_files.parse(file) is None]
        wanted += [f"{component}/{file}" for file in small + weight_files.weights(names, variant)]
    return wanted
