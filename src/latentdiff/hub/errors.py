"""What the hub's client raises, as one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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

from latentdiff.errors import CheckpointError, HubError, LatentDiffError
from latentdiff.hub.index import one_line

# What the client raises when the network fails, whichever HTTP library it is built on.
NETWORK_ERRORS = HfHubHTTPError.__bases__


@contextmanager
def hub_errors(api: HfApi, name: str, revision: str | None) -> Iterator[None]:
    """Turn what the client raises about the repository `name` into one HubError or CheckpointError line."""
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
        known = (line(api, name, revision, cause) for kind, line in LINES if isinstance(cause, kind))
        raise HubError(next(known, None) or _other(name, cause)) from None


def _cause(error: BaseException) -> Any:
    """What lies behind the client's wrappers, which say no more than that something failed."""
    while isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _revision(api: HfApi, name: str, revision: str | None, error: Any) -> str:
    try:
        refs = api.list_repo_refs(name)
        known = ", ".join(sorted(ref.name for ref in [*refs.branches, *refs.tags]))
    except NETWORK_ERRORS:
        known = ""
    return f"{name!r} has no revision {revision!r}; " + (f"it has {known}" if known else "give a branch, tag or commit")


def _refused(api: HfApi, name: str, revision: str | None, error: Any) -> str | None:
    if error.response.status_code not in (401, 403):
        return None
    return f"the hub refused the token for {name!r} (status {error.response.status_code}); give one that has access"


# The first kind that fits gives the line; kinds go from narrow to wide.
LINES: tuple[tuple[Any, Callable[[HfApi, str, str | None, Any], str | None]], ...] = (
    (GatedRepoError, lambda api, name, *_: f"{name!r} is gated; accept its terms on its page and give your token"),
    (RevisionNotFoundError, _revision),
    (RepositoryNotFoundError, lambda api, name, *_: f"the hub shows no model {name!r}; check the name and the token"),
    (HfHubHTTPError, _refused),
    (HFValidationError, lambda api, name, *_: f"{name!r} is no name on the hub; it has the form owner/name"),
    (
        (LocalEntryNotFoundError, OfflineModeIsEnabled),
        lambda api, name, *_: (
            f"{name!r} is not in the cache, and offline mode or local_files_only keeps from the hub; allow the network"
        ),
    ),
)


def _other(name: str, error: Any) -> str:
    return f"the hub failed on {name!r} ({one_line(error)}); check the network and try again"
