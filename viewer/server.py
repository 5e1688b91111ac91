"""A viser server that stays on this machine: loopback by default, no public tunnel."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rich
import viser
import websockets.asyncio.server
from jaxtyping import UInt8
from websockets import Headers, Request, Response

from renderers.errors import SceneError
from viewer.page import BACKGROUND, FirstSight

logger = logging.getLogger("scenegen")

LABEL = "scenegen"
"""The upper line of the panel when nothing goes on; all of it that a folded panel shows."""
HOST, PORT = "127.0.0.1", 8080
"""Where the viewer is served when nothing else is asked for: only to this machine."""
PORTS_TRIED = 100
"""Ports tried, one after the other, when the one asked for is busy."""


class LocalServer(viser.ViserServer):
    """viser without its share tunnel, which any visitor could open to the public internet."""

    first_sight: FirstSight
    """What is behind its page."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Refuse. There is never a public address."""
        logger.warning("a visitor asked for a public share address: refused")
        return None


def start_server(host: str, port: int, first_sight: FirstSight | None = None) -> LocalServer:
    """Serve on ``host``, on ``port`` or the next free one.

    Args:
        host: Name or address of this machine. Anything but loopback is open to the network.
        port: First port tried; 0 lets the system choose.
        first_sight: What is behind the page; nothing but dark when left out.

    Raises:
        SceneError: The host is not an address of this machine, or no port is free.
    """
    addresses = _addresses(host, port)
    free = _free_port(addresses, host, port)
    # Half-open and malformed connections, such as those of port scanners, are not our errors.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    first_sight = first_sight or FirstSight()
    with quiet_console(), _guarded_door(first_sight):
        server = LocalServer(host=host, port=free, label=LABEL, verbose=False)
    server.first_sight = first_sight
    if port not in (0, server.get_port()):
        logger.warning(
            "port %d is not free\n  why: it is in use by another program, perhaps another viewer\n"
            "  fix: using %d instead: open %s",
            port, server.get_port(), address_of(server),
        )  # fmt: skip
    if not all(address.is_loopback for _, address in addresses):
        logger.warning(
            "the viewer listens on %s, port %d: everyone who can reach this computer over the "
            "network can see the world and use the viewer, because it asks for no password",
            host, server.get_port(),
        )  # fmt: skip
    server.gui.configure_theme(
        dark_mode=True, show_logo=False, show_share_button=False, control_width="small"
    )
    server.scene.set_up_direction("-y")
    server.scene.set_background_image(dark_background(), "png")
    return server


def dark_background() -> UInt8[np.ndarray, "h w 3"]:
    """The picture behind the world."""
    return np.full((2, 2, 3), BACKGROUND, dtype=np.uint8)


def address_of(server: viser.ViserServer) -> str:
    """Where a browser on this machine finds the server."""
    host = server.get_host()
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{server.get_port()}"


@contextlib.contextmanager
def quiet_console() -> Iterator[None]:
    """Keep viser from printing: the log says where the viewer is."""
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


_door = threading.Lock()


@contextlib.contextmanager
def _guarded_door(first_sight: FirstSight) -> Iterator[None]:
    """Have the server that is started meanwhile refuse what :func:`refusal` refuses.

    viser answers every request and takes every WebSocket, and offers no way to say which. It calls
    ``serve`` of websockets with a function that looks at each request first: that one is wrapped.
    """
    with _door:
        serve = websockets.asyncio.server.serve

        def guarded(
            handler: Any, host: str, port: int, *, process_request: Any, **rest: Any
        ) -> Any:
            def look(connection: Any, request: Request) -> Response | None:
                why = refusal(request.headers, host)
                if why is None:
                    return first_sight.answer(request.path, process_request(connection, request))
                logger.warning("viewer: a request was refused: %s", why)
                return Response(403, "Forbidden", Headers(), f"refused: {why}\n".encode())

            return serve(handler, host, port, process_request=look, **rest)

        websockets.asyncio.server.serve = guarded  # type: ignore[assignment]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = serve


def refusal(headers: Headers, host: str) -> str | None:
    """Why a request is not answered; None when it is.

    A web page elsewhere could open a WebSocket to this machine, or have its own name resolve to
    this machine: the browser tells in ``Origin`` which page asks, and in ``Host`` whom it asks.

    Args:
        headers: Of the request.
        host: What the server listens on.
    """
    asked, origin = headers.get("Host", ""), headers.get("Origin")
    name = urlsplit(f"//{asked}").hostname or ""
    if _is_loopback(host) and not _is_loopback(name):
        return f"it was sent to {name!r}, and this server is for this machine only"
    if origin is not None and urlsplit(origin).netloc.lower() != asked.lower():
        return f"it comes from a page of {origin!r}"
    return None


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Address]]:
    if not 0 <= port <= 65535:
        raise SceneError(
            f"there is no port {port}",
            why="ports are numbers from 0 to 65535",
            fix="use one from 1024 to 65535, such as 8080",
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SceneError(
            f"the viewer cannot listen on {host!r}",
            why=f"that is not the name or address of a computer ({error})",
            fix="use 127.0.0.1, or an address of this machine",
        ) from error
    return [
        (family, ipaddress.ip_address(str(where[0]).partition("%")[0]))
        for family, _, _, _, where in found
    ]


def _free_port(addresses: list[tuple[socket.AddressFamily, Address]], host: str, port: int) -> int:
    """The first port from ``port`` on that is free on every address; 0 stays 0.

    viser would take the next port without a word, and never return where there is none.
    """
    last = min(65535, port + PORTS_TRIED - 1) if port else 0
    for candidate in range(port, last + 1):
        try:
            for family, address in addresses:
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((str(address), candidate))
                    probe.listen(1)
            return candidate
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _cannot_bind(host, candidate, error) from error
    raise SceneError(
        f"no port is free on {host}",
        why=f"the ports {port} to {last} are all in use",
        fix="close other viewers, or give another port",
    )


def _cannot_bind(host: str, port: int, error: OSError) -> SceneError:
    if isinstance(error, PermissionError):
        why, fix = f"port {port} needs administrator rights", "use a port above 1023, such as 8080"
    else:
        why, fix = error.strerror or str(error), "use 127.0.0.1, or an address of this machine"
    return SceneError(f"the viewer cannot listen on {host}, port {port}", why=why, fix=fix)
