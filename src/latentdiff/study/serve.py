"""The server's process: its port, and the addresses that it prints."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import uvicorn

from latentdiff.errors import InputError
from latentdiff.study.app import make_app
from latentdiff.study.store import Store
from latentdiff.study.study import Study

WAITING_CONNECTIONS = 128
EVERYWHERE = ("0.0.0.0", "::")  # the addresses of IPv4 and IPv6 that stand for all of a machine's
GRACE_SECONDS = 5  # for requests that are under way when the server is ended


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: The name or number of an address of this machine.
        port: The port; 0 takes a free one.

    Raises:
        InputError: If there is no such address, or the port is taken or not allowed.
    """
    try:
        (family, *_), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=family, backlog=WAITING_CONNECTIONS)
    except socket.gaierror as error:
        raise InputError(f"--host is {host}, which is no address here ({error.strerror}); give another") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"can't listen on port {port} of {host} ({reason}); give another --port or --host") from None


def address(host: str, listening: socket.socket) -> str:
    """The address of the server's page, without a slash at its end; that of this machine's name for all its own."""
    name = socket.gethostname() if host in EVERYWHERE else host
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}"


def serve(study: Study, store: Store, texts: Mapping[str, str], listening: socket.socket) -> None:
    """Answer requests until the process is told to end, as by Ctrl-C."""
    config = uvicorn.Config(
        make_app(study, store, texts),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listening])
