"""What we add to viser's page: something to see before its scripts have run, and a place on phones.

viser's page is white until its scripts are connected, which takes seconds on a busy machine. Its
canvas is transparent until something is drawn, so what is put behind it is seen until then.
"""

from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from websockets import Headers, Response

BACKGROUND = (30, 31, 34)
"""sRGB levels of what is unknown: a quiet dark neutral."""
QUALITY = 85
"""Of the photograph in the page, as JPEG: about 150 kB."""
LINKED = "initialCameraPosition"
"""In the address of a link to a view: it opens elsewhere than where the photograph was taken."""

HEAD = Template(Path(__file__).with_name("page.html").read_text("utf-8"))
"""Styles and scripts. ``background`` is one of CSS; ``folds`` says whether a narrow window begins
without the panel; ``packs`` is the script that draws faster without graphics chip."""
PACKS = Path(__file__).with_name("packs.js").read_text("utf-8")


class FirstSight:
    """Says what is behind the page. Safe to use from any thread."""

    def __init__(self) -> None:
        self._photo = ""

    def show(self, rgb: UInt8[np.ndarray, "h w 3"] | None) -> None:
        """Show a photograph, as high as the window: as the first view of a world does; or none."""
        data = io.BytesIO()
        if rgb is not None:
            Image.fromarray(rgb).save(data, "JPEG", quality=QUALITY)
        self._photo = base64.b64encode(data.getvalue()).decode()

    def answer(self, asked: str, answer: Response | None) -> Response | None:
        """Viser's page, with the photograph in it; every other answer as it is.

        Args:
            asked: Path and query of the request.
            answer: What viser answers; None where it opens a WebSocket.
        """
        path, query = urlsplit(asked).path, urlsplit(asked).query
        if answer is None or answer.status_code != 200 or path not in ("/", "/index.html"):
            return answer
        html = bytes(answer.body or b"")
        if answer.headers.get("Content-Encoding") == "gzip":
            html = gzip.decompress(html)
        head = _head("" if LINKED in query else self._photo, folds=bool(self._photo))
        html = html.replace(b"<head>", b"<head>" + head, 1)
        html = html.replace(b"<title>Viser</title>", b"<title>scenegen</title>", 1)
        kind = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(html))}
        return Response(200, "OK", Headers({**kind, "Cache-Control": "no-store"}), html)


def _head(photo: str, folds: bool) -> bytes:
    picture = f" url(data:image/jpeg;base64,{photo}) center/auto 100% no-repeat" if photo else ""
    words = {"folds": str(folds).lower(), "packs": PACKS}
    words["background"] = f"rgb{BACKGROUND}{picture}"
    return HEAD.substitute(words).encode()
