"""The demo's server: on this machine alone unless told otherwise, until Ctrl-C."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

import numpy as np

from kpose.errors import KposeError
from kpose.inference import PoseEstimator


def serve(estimator: PoseEstimator, title: str, host: str = "127.0.0.1", port: int = 8000, allowed_hosts: Sequence[str] = ()) -> None:
    """Serve the page until an interrupt.

    Args:
        estimator: finds the people.
        title: what the page calls the network.
        host: name or address to listen at.
        port: to listen at; 0: any that is free.
        allowed_hosts: further names and addresses by which browsers may call the server.

    Raises:
        KposeError: when the extra `demo` is not installed, the port is taken, the address is none of this machine's, or it stands for all
            of them and `allowed_hosts` is empty.
    """
    try:
        import uvicorn

        from kpose.demo.application import LOOPBACK_NAMES, PoseService, demo_application
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio"):
            raise
        raise KposeError("the demo needs Starlette and uvicorn, which are not installed; run: pip install 'kpose[demo]'") from error

    if _is_everywhere(host) and not allowed_hosts:
        raise KposeError(
            f"{host} listens at all addresses of this machine; say by which one it is called, such as --allow-host {socket.gethostname()}"
        )
    listening = _listen(host, port)
    with listening:
        # Compiles what the first picture would otherwise wait for.
        estimator(np.zeros((64, 48, 3), np.uint8))
        service = PoseService(estimator)
        application = demo_application(service, title, (*LOOPBACK_NAMES, host, *allowed_hosts))
        name = allowed_hosts[0] if _is_everywhere(host) else host
        print(f"kpose demo: http://{_bracketed(name)}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        if not _is_loopback(listening):
            print("whoever can reach this address can use it; browsers give their camera only to https and to this machine", flush=True)
        # The queue of the application is shorter, so that its own answer is the one that is seen.
        settings = uvicorn.Config(application, log_level="warning", access_log=False, server_header=False, limit_concurrency=64)
        # uvicorn ends in good order, then hands the interrupt on.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listening])
    print(f"looked at {service.pictures} pictures and {service.frames} camera frames; nothing was kept")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        KposeError: when it cannot.
    """
    if not 0 <= port < 1 << 16:
        raise KposeError(f"--port must lie in 0..65535, found {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise KposeError(f"cannot listen at {host} port {port}: {reason}; choose another --port (0: any that is free) or --host") from error


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
