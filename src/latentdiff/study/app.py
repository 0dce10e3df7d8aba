"""The server of a study: the page, the pairs that it shows, and the answers that it sends.

Addresses of images have the participant's token, the place of the pair and a side, and images are sent as pixels alone,
so that nothing but the picture itself tells a participant which method made it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from latentdiff.errors import BadFileError
from latentdiff.study.store import RefusedError, Store
from latentdiff.study.study import INPUT, Study

LOG = logging.getLogger("latentdiff.study")
ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "study.css": "text/css; charset=utf-8",
    "study.js": "text/javascript; charset=utf-8",
}
STATUSES = {
    "unknown": HTTPStatus.NOT_FOUND,
    "expired": HTTPStatus.GONE,
    "closed": HTTPStatus.FORBIDDEN,
    "early": HTTPStatus.CONFLICT,
    "order": HTTPStatus.CONFLICT,
}
HEADERS = {
    # Nothing comes from elsewhere, and the secret address of a participant is told to no other site.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
NEVER_KEPT = {**HEADERS, "Cache-Control": "no-store"}
ASKED_AGAIN = {**HEADERS, "Cache-Control": "no-cache"}  # kept, but used only if it is still the same
KEPT = {**HEADERS, "Cache-Control": "private, max-age=31536000, immutable"}


def make_app(study: Study, store: Store, texts: Mapping[str, str]) -> Starlette:
    """The ASGI application of a study.

    Args:
        study: The study.
        store: Its answers.
        texts: What the page says, as in `texts.ENGLISH`.
    """
    server = _Server(study, store, texts)
    return Starlette(
        routes=[
            Route("/", server.page),
            Route("/s/{token}", server.page),
            Route("/static/{name}", server.asset),
            Route("/image/{token}/{position:int}/{place}", server.image),
            Route("/api/study", server.about),
            Route("/api/join", server.join, methods=["POST"]),
            Route("/api/s/{token}", server.state),
            Route("/api/s/{token}/{position:int}/shown", server.show, methods=["POST"]),
            Route("/api/s/{token}/{position:int}/{side}", server.answer, methods=["POST"]),
        ],
        exception_handlers={RefusedError: _refused, BadFileError: _no_image, sqlite3.Error: _not_stored},
    )


class _Server:
    """The endpoints. They are plain functions, which Starlette runs in threads: they wait for disks."""

    def __init__(self, study: Study, store: Store, texts: Mapping[str, str]) -> None:
        self._study = study
        self._store = store
        self._texts = texts
        page = files("latentdiff.study") / "page"
        # A large image takes hundreds of megabytes while it is decoded.
        self._decoding = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._assets = {name: (page / name).read_bytes() for name in ASSETS}

    def page(self, request: Request) -> Response:
        """The one page, which reads the token from its own address."""
        return self._asset("index.html", request)

    def asset(self, request: Request) -> Response:
        """The page's script or style."""
        name = request.path_params["name"]
        return self._asset(name, request) if name in ASSETS else _nothing()

    def _asset(self, name: str, request: Request) -> Response:
        content = self._assets[name]
        return _tagged(request, lambda: content, hashlib.sha256(content).hexdigest(), ASSETS[name], ASKED_AGAIN)

    def about(self, request: Request) -> Response:
        """What the page says and shows for everybody."""
        facts = self._study.facts
        return _told(
            {
                "id": self._study.fingerprint[:16],
                "open": self._store.is_open(),
                "task": facts.task,
                "look": facts.look,
                "of": len(self._study),
                "middle": self._study.has_middle,
                "texts": dict(self._texts),
            }
        )

    def join(self, request: Request) -> Response:
        """A token for somebody who has no invitation."""
        return _told({"token": self._store.join()}, HTTPStatus.CREATED)

    def state(self, request: Request) -> Response:
        """How far a participant is."""
        return self._at(self._store.participant(request.path_params["token"]))

    def show(self, request: Request) -> Response:
        """The page shows a pair from now on."""
        number, position = self._place(request)
        return _told({"look": self._store.show(number, position)})

    def answer(self, request: Request) -> Response:
        """An answer; what is told here is on the disk."""
        side = request.path_params["side"]
        if side not in ("left", "right"):
            return _nothing()
        number, position = self._place(request)
        self._store.answer(number, position, side)
        return self._at(number)

    def image(self, request: Request) -> Response:
        """An image of a pair: on the left, in the middle or on the right."""
        number, position = self._place(request)
        place = request.path_params["place"]
        if not position < len(self._study):
            return _nothing()
        pair = self._study.pairs(number)[position]
        roles = {"left": pair.left, "right": pair.right}
        if self._study.has_middle:
            roles["middle"] = INPUT
        if place not in roles:
            return _nothing()
        tag = hashlib.sha256(f"{self._study.fingerprint} {request.url.path}".encode()).hexdigest()
        with self._decoding:
            return _tagged(request, lambda: self._study.png(pair.name, roles[place]), tag, "image/png", KEPT)

    def _place(self, request: Request) -> tuple[int, int]:
        """The participant's number and the place of the pair."""
        return self._store.participant(request.path_params["token"]), request.path_params["position"]

    def _at(self, number: int) -> Response:
        return _told({"done": self._store.position(number), "of": len(self._study)})


def _told(content: Mapping[str, object], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return JSONResponse(content, status, NEVER_KEPT)


def _nothing() -> Response:
    return _told({"error": "nothing"}, HTTPStatus.NOT_FOUND)


def _tagged(request: Request, make: Callable[[], bytes], tag: str, kind: str, headers: Mapping[str, str]) -> Response:
    """What is made, or word that the browser has the content of the tag already."""
    headers = {**headers, "ETag": f'"{tag}"'}
    if f'"{tag}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(make(), headers=headers, media_type=kind)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _told({"error": error.reason, "wait": error.wait}, STATUSES[error.reason])


def _no_image(request: Request, error: Exception) -> Response:
    return _failed("image", error)


def _not_stored(request: Request, error: Exception) -> Response:
    return _failed("storage", error)


def _failed(what: str, error: Exception) -> Response:
    """Something of the server's failed, which the page tries again; whoever runs it reads the reason in the log."""
    LOG.error("%s: %s", what, error)
    return _told({"error": what}, HTTPStatus.SERVICE_UNAVAILABLE)
