"""Without graphics chip the page draws splats in packs: the same picture, in fewer instances."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import NEEDS_BROWSER, Page, keep, wait_for
from test_viewer_browser import HIDE_PANELS
from viewer_parts import world

from viewer import ViewerApp

pytestmark = NEEDS_BROWSER
COUNT = """
    window.instances = 0;
    const GL = WebGL2RenderingContext.prototype, draw = GL.drawElementsInstanced;
    GL.drawElementsInstanced = function (...call) {
        window.instances = Math.max(window.instances, call[4]);
        draw.apply(this, call);
    };
"""
"""Notes the instances of the largest call."""
CHIP = """
    const parameter = GL.getParameter;
    GL.getParameter = function (what) { return what === 37446 ? "A chip" : parameter.call(this, what) };
"""  # noqa: E501
"""Has the browser say that there is a graphics chip: then splats are drawn as viser draws them."""


@pytest.mark.parametrize(("shown", "largest"), [(world(328), 10), (world(64), 2), (world(30), 1)])
def test_packs_draw_the_same_picture(shown: Any, largest: int, tmp_path: Path) -> None:
    """With a rest that fills no pack, without one, and nothing but a rest."""
    pictures, instances = [], []
    with ViewerApp(port=0) as app:
        app.show_world(shown)
        for name, script in (("packs", COUNT), ("single", COUNT + CHIP)):
            tab = Page(tmp_path / name)
            try:
                tab.call("Page.addScriptToEvaluateOnNewDocument", source=f"{{ {script} }}")
                tab.open(app.url)
                (person,) = wait_for(lambda: app.visitors, "a visitor")
                wait_for(lambda p=person: p.walker.here and p.splats.shown > 0, "the world")
                pictures.append(still(tab))
                instances.append(tab.ask("instances"))
                assert tab.complaints() == []
            finally:
                tab.close()
            wait_for(lambda: not app.visitors, "the visitor to leave")
    keep(pictures[0], f"viewer_packs_{largest}.png")
    assert instances == [largest, sum(len(chunk) for chunk in shown.chunks)]
    packs, single = (picture.astype(int) for picture in pictures)
    assert np.abs(packs - packs[0, 0]).max() > 50  # there is something to see
    assert np.abs(packs - single).mean() < 2.0
    assert (np.abs(packs - single).max(-1) > 30).mean() < 0.02  # edges that still fade in


def still(tab: Page) -> np.ndarray:
    """The canvas alone, once something is drawn and as good as still: it is faded in."""
    last = tab.screenshot()

    def same() -> bool:
        nonlocal last
        bare = tab.ask(HIDE_PANELS)
        time.sleep(1.0)
        before, last = last, tab.screenshot()
        shows = np.abs(last.astype(int) - last[0, 0]).max() > 50
        return bare and shows and np.array_equal(before, last)

    wait_for(same, "a still picture")
    return last
