"""A world as one page of HTML that shows itself in a browser, from a disk or a server, offline.

The page holds the splats (as in a ``.splat``, gzipped, in base64) and a small viewer of our
own in WebGL 2, ``page.html``: walk, look and orbit; a worker sorts. It loads nothing.
"""

from __future__ import annotations

import base64
import html
import logging
import zlib
from pathlib import Path

from renderers.splats import Splats
from scenegen.export.atomic import atomic_write
from scenegen.export.rows import rows_of
from scenegen.export.splat import packed

logger = logging.getLogger("scenegen")

FOV = 70.0
"""Horizontal field of view when the page opens, in degrees."""


def write_html(path: str | Path, splats: Splats) -> None:
    """Write a page that shows the splats from where the photograph was taken.

    Args:
        path: The file. It appears whole or not at all. Its name is the title.
        splats: At least one; values as for :func:`write_ply`. Harmonics are left out. Phones
            show up to a million, see ``--splats``.

    Raises:
        SceneError: A value is out of range, or the file cannot be written.
    """
    path = Path(path)
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    before, after = page.replace("__FOV__", f"{FOV:g}").split("__DATA__")
    before = before.replace("__TITLE__", html.escape(path.stem))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(before.encode())
        packer, rest = zlib.compressobj(6, wbits=31), b""
        for rows in rows_of(splats, path.name):
            rest += packer.compress(packed(rows).tobytes())
            whole = len(rest) - len(rest) % 3  # so that blocks of base64 join
            file.write(base64.b64encode(rest[:whole]))
            rest = rest[whole:]
        file.write(base64.b64encode(rest + packer.flush()))
        file.write(after.encode())
    logger.info("%s: %d splats; no harmonics, no cameras, no memory, no steps", path, len(splats))
