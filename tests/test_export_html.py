"""The page that shows itself: from a disk, in a real browser, with nothing else at hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import NEEDS_BROWSER, Page, wait_for
from coloured_room import HEIGHT, WIDTH, coloured_room, psnr
from other_programs import value
from splat_scenes import cloud

from renderers import Camera, SceneError, Splats, make_renderer
from scenegen.export import export_file
from scenegen.export.html import FOV

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("profile"), WIDTH, HEIGHT)
    yield page
    page.close()


def shown(tab: Page, folder: Path, splats: Splats) -> None:
    export_file(folder / "my <room>.html", splats=splats)
    tab.errors.clear()
    tab.open((folder / "my <room>.html").as_uri())
    wait_for(lambda: value(tab, "scenegen.error || scenegen.frames > 0"), "the page to draw")
    assert value(tab, "scenegen.error") == "" and tab.errors == []
    value(tab, "$('bar').style.display = 'none'")


def plain(splats: Splats) -> Splats:
    return Splats(splats.means, splats.quats, splats.scales, splats.opacities, splats.colors)


@pytest.mark.parametrize("scene", ["room", "cloud"])
def test_it_shows_what_we_render(tmp_path: Path, tab: Page, scene: str) -> None:
    splats = coloured_room() if scene == "room" else cloud(2000)
    shown(tab, tmp_path, splats)
    assert value(tab, "scenegen.count") == len(splats)
    assert value(tab, "document.title") == "my <room>"
    picture = torch.from_numpy(tab.screenshot() / 255.0).float()
    want = make_renderer("cpu").render(plain(splats), Camera.from_fov(FOV, WIDTH, HEIGHT))
    assert psnr(picture, want.rgb) > 32


def test_one_walks_and_turns(tmp_path: Path, tab: Page) -> None:
    """W goes ahead, the view turns, and far splats do not cover near ones from behind either."""
    room = coloured_room()
    shown(tab, tmp_path, room)
    tab.hold_key("w", 0.3)
    wait_for(lambda: value(tab, "camera.eye[2]") > 0.1, "the step")
    sorts = value(tab, "scenegen.sorts")
    value(tab, "home(); look(0.4, 0.1)")
    wait_for(lambda: value(tab, f"scenegen.sorts > {sorts} && !sorting && !stale && !dirty"), "it")
    time.sleep(0.2)
    picture = torch.from_numpy(tab.screenshot() / 255.0).float()
    home = Camera.from_fov(FOV, WIDTH, HEIGHT)
    view = home.moved(yaw_degrees=np.degrees(0.4), pitch_degrees=np.degrees(0.1))
    assert psnr(picture, make_renderer("cpu").render(plain(room), view).rgb) > 32


def test_it_loads_nothing_and_is_whole_or_not_at_all(tmp_path: Path) -> None:
    export_file(tmp_path / "a.html", splats=cloud(10))
    text = (tmp_path / "a.html").read_text()
    assert "http" not in text.replace("<!doctype html>", "") and "__" not in text[:3000]
    bad = cloud(10)
    bad.opacities[3] = 2.0
    with pytest.raises(SceneError, match="splat 3 cannot be written"):
        export_file(tmp_path / "a.html", splats=bad)
    assert (tmp_path / "a.html").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
