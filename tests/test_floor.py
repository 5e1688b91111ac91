"""The floor under what is invented: by hand, in a layer, and in a world."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import scenegen
from renderers import Camera, make_renderer
from scenegen.world.align import Seen
from scenegen.world.floor import SLACK, floor_depth, lowest
from scenegen.world.grow import _new_sky, invent, sky_behind
from scenegen.world.layer import behind_edges

CAMERA = Camera.from_fov(90.0, 80, 60)
"""Its focal length is 40 pixels."""


def ground(height: float = 1.6) -> torch.Tensor:
    """A level floor up to 40 m, and sky above."""
    return torch.where(floor_depth(CAMERA, height) < 40.0, floor_depth(CAMERA, height), math.inf)


def test_a_floor_by_hand() -> None:
    """A ray 20 of 40 pixels below the horizon falls 1 m on 2: 1.6 m on 3.2."""
    depth = floor_depth(CAMERA, 1.6)
    assert torch.isposinf(depth[:30]).all()
    rows = torch.arange(30) + 0.5
    torch.testing.assert_close(depth[30:, 7], 1.6 * 40 / rows)
    higher = floor_depth(CAMERA.moved(down=-0.4, yaw_degrees=120), 1.6)  # now it is 2 m down
    torch.testing.assert_close(higher[30:, 7], 2.0 * 40 / rows)
    assert torch.isposinf(floor_depth(CAMERA.moved(down=2.0), 1.6)).all()  # from below it


def test_what_is_invented_ends_a_little_below_the_floor() -> None:
    photo = ground()
    photo[30:32] = 50.0  # its sky ends at the level of the camera
    limit = lowest(CAMERA, Seen(CAMERA, photo), 1.6)
    torch.testing.assert_close(limit, SLACK * floor_depth(CAMERA, 1.6))


def test_the_floor_begins_where_the_sky_of_the_photograph_ends() -> None:
    """Its camera was held upwards: sky reaches 10 of 30 rows below the middle, and all round.

    In the middle column the floor sinks by 10 of 40 metres: a ray 19.5 rows below the middle meets
    it after 1.6 / (19.5 - 10) * 40 metres.
    """
    depth = torch.full((60, 80), math.inf)
    depth[40:] = 1.6 * 40 / (torch.arange(20)[:, None] + 0.5)
    torch.testing.assert_close(
        floor_depth(CAMERA, 1.6, 0.25)[49, 39], depth[49, 39], rtol=1e-3, atol=0.0
    )
    limit = lowest(CAMERA, Seen(CAMERA, depth), 1.6)
    assert torch.isposinf(limit[:39]).all()
    torch.testing.assert_close(limit, SLACK * floor_depth(CAMERA, 1.6, 0.25))
    behind = lowest(CAMERA.moved(yaw_degrees=180), Seen(CAMERA, depth), 1.6)
    torch.testing.assert_close(behind, limit)
    aside = floor_depth(CAMERA.moved(right=4.0), 1.6, 0.25)
    torch.testing.assert_close(aside[49, 39], torch.tensor(2.6 / 9.5 * 40), rtol=1e-3, atol=0.0)


def test_new_sky_touches_known_sky_and_no_thing_hangs_in_it() -> None:
    depth = torch.full((8, 10), 5.0)
    depth[:5, :4] = math.inf
    new = torch.zeros(8, 10, dtype=torch.bool)
    new[:, 4:] = True
    above = torch.zeros_like(new)
    above[:6] = True
    looks = torch.zeros_like(new)
    looks[:5] = True
    looks[2, 6:8] = False  # a cloud that looks like a thing
    looks[3:, 9] = False  # a pole that stands on the ground
    looks[7, 5] = True  # a puddle
    expected = new & looks
    expected[2, 6:8], expected[7, 5] = True, False
    assert torch.equal(_new_sky(looks, new, depth, above), expected)
    indoors = torch.full((8, 10), 5.0)
    assert not _new_sky(looks, new, indoors, above).any()


def test_new_sky_goes_on_behind_what_stands_before_it() -> None:
    """4 of 80 columns (5 %) around it, on the sphere, and not over the sky of the photograph."""
    depth = torch.full((60, 80), 5.0)
    depth[:20, 60:] = math.inf
    new = torch.isposinf(depth)
    rgb = torch.where(new[..., None], torch.tensor([0.2, 0.4, 0.9]), torch.zeros(3))
    wall, open_sky = torch.full((60, 80), 5.0), torch.full((60, 80), math.inf)
    made = sky_behind(rgb, depth, new, CAMERA, Seen(CAMERA, wall), 50.0)
    pixels, _ = CAMERA.project(made.means)
    column, row = pixels.floor().long().unbind(1)
    assert {*column[row < 20].tolist()} == {56, 57, 58, 59}
    assert {*row.tolist()} == {*range(24)} and int(column.min()) == 56
    torch.testing.assert_close(made.means.norm(dim=1), torch.full((len(made),), 50.0))
    torch.testing.assert_close(made.colors, torch.tensor([[0.2, 0.4, 0.9]]).expand(len(made), 3))
    assert len(sky_behind(rgb, depth, new, CAMERA, Seen(CAMERA, open_sky), 50.0)) == 0
    assert len(sky_behind(rgb, depth, new & False, CAMERA, Seen(CAMERA, wall), 50.0)) == 0


@pytest.mark.parametrize(
    "depth", [ground(4.0), torch.full((60, 80), math.inf), torch.full((60, 80), 0.5)]
)
def test_no_floor_where_the_photograph_shows_none(depth: torch.Tensor) -> None:
    """From a table 2.4 m above the ground; nothing but sky; nothing but a wall."""
    assert torch.isposinf(lowest(CAMERA, Seen(CAMERA, depth), 1.6)).all()


def test_behind_a_thing_on_the_ground_is_ground_and_no_sky() -> None:
    depth = ground()
    depth[20:50, 30:50] = 2.5
    rgb = torch.rand(60, 80, 3)
    made = behind_edges(
        rgb, depth, CAMERA, outpaint_backend="patch", seed=0, sky_radius=100.0, eye_height=1.6
    )
    assert made is not None
    assert (
        made.depth[made.known] <= 1.001 * lowest(CAMERA, Seen(CAMERA, depth), 1.6)[made.known]
    ).all()


def test_a_step_does_not_dig(grown_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it for the estimate, all that is new would be 150 m away."""
    with closing(scenegen.open(grown_world)) as world:
        view = world._look(world.camera0.moved(yaw_degrees=35), world.splats)
        depth = torch.where(view.hole, 150.0, view.depth.nan_to_num(150.0, posinf=150.0))
        estimate = SimpleNamespace(depth=depth, sky=torch.zeros_like(view.hole))
        monkeypatch.setattr("scenegen.geometry.estimate", lambda *_: estimate)
        grown = invent(
            view, world.memory, (0,), renderer=make_renderer("cpu"), depth_backend="prior",
            outpaint_backend="patch", prompt=None, seed=0, sky_radius=world.sky_radius,
            eye_height=1.6,
        )  # fmt: skip
        assert grown is not None
        photo = world.memory.views[0]
        limit = lowest(view.camera, Seen(photo.camera, photo.depth), 1.6)
        new = grown.data.known & torch.isfinite(grown.data.depth) & torch.isfinite(limit)
        sunk = grown.data.depth[new] > 1.01 * limit[new]
        assert new.float().mean() > 0.1 and sunk.float().mean() < 0.02
