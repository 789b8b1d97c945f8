"""The demo as an ASGI application: one page of fixed files, and two addresses that look for people.

    GET  /              the page; its script and style beside it
    GET  /network       what is drawn and how: joints, limbs, colours; limits of an upload
    POST /poses         a JPEG or PNG picture -> the people in it
    POST /cameras/{id}  the next frame of a camera -> the people in it, followed and smoothed

Whoever can reach the port could use it, and so could, through a visitor's browser, any page of the web. Hence: a request must name the
server by a name it is known by (an attacker's name that was rebound to this machine is none), what posts must come from the page itself,
uploads are bounded in bytes before they are read and in pixels before they are decoded, and nothing of the disk is served but the page.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import kpose
from kpose.errors import KposeError
from kpose.inference import PoseEstimator, VideoPoses
from kpose.inference.images import decode_image
from kpose.visualize import joint_colours

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# A photo of a good camera has 15 MB; what it takes decoded is three bytes a pixel.
LARGEST_UPLOAD_BYTES = 32 << 20
LARGEST_UPLOAD_PIXELS = 50_000_000
# Pictures that are being received, or wait for the network, at once: what they take of the memory is bounded too.
MOST_WAITING = 4
# Cameras that are followed at once; of more, the one that was silent longest is forgotten.
MOST_CAMERAS = 4
# A frame later than that is not the next one.
CAMERA_PAUSE_SECONDS = 5.0
_UPLOAD_SECONDS = 60.0

_PAGE = {
    "/": ("index.html", "text/html"),
    "/demo.js": ("demo.js", "text/javascript"),
    "/demo.css": ("demo.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class PoseService:
    """Finds people for the addresses of the demo; one call at a time.

    Args:
        estimator: as `kpose predict` uses it.

    Attributes:
        pictures, frames: how many were answered.
    """

    def __init__(self, estimator: PoseEstimator) -> None:
        self.estimator = estimator
        self.pictures = self.frames = 0
        self._cameras: OrderedDict[str, _Camera] = OrderedDict()

    def picture(self, content: bytes) -> dict[str, Any]:
        """The people in an encoded picture.

        Raises:
            KposeError: when it is no picture, or too large.
        """
        image = decode_image(content, "of the upload", LARGEST_UPLOAD_PIXELS)
        start = time.monotonic()
        people = [pose.to_json() for pose in self.estimator(image)[0]]
        self.pictures += 1
        return self._answer(image, people, start)

    def frame(self, content: bytes, camera: str) -> dict[str, Any]:
        """The people in the next frame of a camera, with the `identity` of each.

        Raises:
            KposeError: when it is no picture, or too large.
        """
        image = decode_image(content, "of the camera", LARGEST_UPLOAD_PIXELS)
        start = time.monotonic()
        known = self._cameras.pop(camera, None)
        if known is None or known.size != image.shape[:2] or start - known.seconds > CAMERA_PAUSE_SECONDS:
            known = _Camera(VideoPoses(self.estimator), image.shape[:2], start)
        known.seconds = start
        self._cameras[camera] = known
        while len(self._cameras) > MOST_CAMERAS:
            self._cameras.popitem(last=False)
        people = [tracked.pose.to_json() | {"identity": tracked.identity} for tracked in known.poses(image, start)]
        self.frames += 1
        return self._answer(image, people, start)

    @staticmethod
    def _answer(image: np.ndarray, people: list[dict[str, Any]], start: float) -> dict[str, Any]:
        seconds = round(time.monotonic() - start, 4)
        return {"height": image.shape[0], "width": image.shape[1], "people": people, "seconds": seconds}


class _Camera:
    """A camera that is followed: its frames' height and width, and when the last one came."""

    def __init__(self, poses: VideoPoses, size: tuple[int, ...], seconds: float) -> None:
        self.poses, self.size, self.seconds = poses, size, seconds


def demo_application(service: PoseService, title: str, allowed_hosts: Sequence[str] = LOOPBACK_NAMES) -> Starlette:
    """The web application.

    Args:
        service: finds the people.
        title: what the page calls the network.
        allowed_hosts: names and addresses, without a port, by which it may be called.
    """
    folder = resources.files("kpose.demo") / "page"
    page = {address: ((folder / name).read_bytes(), kind) for address, (name, kind) in _PAGE.items()}
    skeleton = service.estimator.skeleton
    network = {
        "kpose": kpose.__version__,
        "title": title,
        "detector": service.estimator.detector is not None,
        "cameras": skeleton.oks_sigmas is not None,
        "skeleton": skeleton.to_dict(),
        "limbs": skeleton.limb_indices,
        "colours": joint_colours(skeleton),
        "largest_bytes": LARGEST_UPLOAD_BYTES,
        "largest_pixels": LARGEST_UPLOAD_PIXELS,
    }
    waiting = anyio.Semaphore(MOST_WAITING)
    # One at a time: `PoseService` asks for it, and the network uses all cores already.
    worker = anyio.CapacityLimiter(1)

    async def show(request: Request) -> Response:
        content, kind = page[request.url.path]
        return Response(content, media_type=kind)

    async def describe(request: Request) -> Response:
        return JSONResponse(network)

    async def answer(request: Request) -> Response:
        try:
            waiting.acquire_nowait()
        except anyio.WouldBlock:
            raise HTTPException(503, f"busy with {MOST_WAITING} pictures; try again in a moment") from None
        try:
            content = await _received(request)
            camera = request.path_params.get("camera")
            work = (service.picture, content) if camera is None else (service.frame, content, camera)
            return JSONResponse(await anyio.to_thread.run_sync(*work, limiter=worker))
        except KposeError as error:
            raise HTTPException(400, str(error)) from error
        finally:
            waiting.release()

    routes = [Route(address, show, methods=["GET"]) for address in page]
    routes += [Route("/network", describe, methods=["GET"]), Route("/poses", answer, methods=["POST"])]
    if network["cameras"]:
        routes.append(Route("/cameras/{camera}", answer, methods=["POST"]))
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Door, allowed_hosts=tuple(host.lower() for host in allowed_hosts))],
        exception_handlers={HTTPException: _refusal, Exception: _failure},
    )


async def _received(request: Request) -> bytes:
    """The body of a request, of a picture's type and bounded size.

    Raises:
        HTTPException: when it is neither, or takes too long.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("image/jpeg", "image/png"):
        # Neither is among the types that a page of another site may send without asking first.
        raise HTTPException(415, f"the upload is of type {kind[:40] or 'none'}; send a JPEG or PNG picture")
    too_large = HTTPException(413, f"the picture has more than {LARGEST_UPLOAD_BYTES >> 20} MiB; make it smaller")
    claimed = request.headers.get("content-length", "0")
    if not claimed.isascii() or not claimed.isdigit() or int(claimed[:20]) > LARGEST_UPLOAD_BYTES:
        raise too_large
    content = bytearray()
    try:
        with anyio.fail_after(_UPLOAD_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > LARGEST_UPLOAD_BYTES:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the upload took longer than {_UPLOAD_SECONDS:.0f} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the upload was cut off") from None
    return bytes(content)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _failure(request: Request, error: Exception) -> Response:
    # The server's own log has the traceback; the page is not the place for it.
    return JSONResponse({"error": "kpose failed on this picture; the terminal says how"}, status_code=500)


class _Door:
    """Refuses requests that do not call the server by its name, or that another site's page sends; adds the headers of safety."""

    def __init__(self, app: ASGIApp, allowed_hosts: tuple[str, ...]) -> None:
        self.app, self.allowed_hosts = app, allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] != "websocket":
                await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        reason = self._refused(scope["method"], Headers(scope=scope))
        if reason:
            await JSONResponse({"error": reason}, status_code=403)(scope, receive, send_safely)
        else:
            await self.app(scope, receive, send_safely)

    def _refused(self, method: str, headers: Headers) -> str | None:
        host = headers.get("host", "")
        name = _host_name(f"//{host}")
        if name not in self.allowed_hosts:
            return f"this server is not known as {host[:80]!r}; start it with --allow-host NAME"
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        # Browsers send both with every POST of a script; other programs send neither, and need not be kept from it.
        if headers.get("sec-fetch-site", "same-origin") != "same-origin" or (origin is not None and _authority(origin) != host.lower()):
            return "requests from other pages are refused"
        return None


def _host_name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
