"""The errors of the hub's client, as one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from latentdiff.errors import CheckpointError, HubError, LatentDiffError, one_line

# What the client raises when the network fails. It hands on the HTTP library that it is built on, which has changed.
NETWORK_ERRORS = (httpx.HTTPError, OSError)

OFFLINE = "{name} is not in the cache, and offline mode or local_files_only keeps from the hub; allow the network"

# The lines that need no more than the name. The first kind that fits counts: a gated repository is "not found", too.
LINES: dict[type[BaseException], str] = {
    GatedRepoError: "{name} is gated; accept its terms on its page and give your token",
    RepositoryNotFoundError: "the hub shows no model {name}; check the name and the token",
    HFValidationError: "{name} is no name on the hub; it has the form owner/name",
    LocalEntryNotFoundError: OFFLINE,
    OfflineModeIsEnabled: OFFLINE,
}


@contextmanager
def hub_errors(api: HfApi, name: str, revision: str | None) -> Iterator[None]:
    """Turn what the client raises about a repository into one line.

    Args:
        api: The client.
        name: The name of the repository.
        revision: What was asked for of it.

    Raises:
        HubError: In place of the client's errors.
        CheckpointError: In place of its error about a file that the repository doesn't have.
    """
    try:
        yield
    except LatentDiffError:
        raise
    except (OSError, ValueError, RuntimeError, EntryNotFoundError, *NETWORK_ERRORS) as error:
        cause = _cause(error)
        if isinstance(cause, RemoteEntryNotFoundError):
            path = str(cause.response.url).partition("/resolve/")[2].partition("/")[2]
            line = f"{name!r} has no file {path}; give a whole pipeline, or the subfolder that holds one"
            raise CheckpointError(line) from None
        raise HubError(_line(api, name, revision, cause)) from None


def _cause(error: BaseException) -> BaseException:
    """What lies behind the client's wrappers, which say no more than that something failed."""
    while isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _line(api: HfApi, name: str, revision: str | None, error: BaseException) -> str:
    for kind, text in LINES.items():
        if isinstance(error, kind):
            return text.format(name=repr(name))
    if isinstance(error, RevisionNotFoundError):
        return f"{name!r} has no revision {revision!r}; {_known_revisions(api, name)}"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        status = error.response.status_code
        return f"the hub refused the token for {name!r} (status {status}); give one that has access"
    return f"the hub failed on {name!r} ({one_line(error)}); check the network and try again"


def _known_revisions(api: HfApi, name: str) -> str:
    try:
        refs = api.list_repo_refs(name)
    except NETWORK_ERRORS:
        return "give a branch, tag or commit"
    known = ", ".join(sorted(ref.name for ref in [*refs.branches, *refs.tags]))
    return f"it has {known}" if known else "give a branch, tag or commit"
