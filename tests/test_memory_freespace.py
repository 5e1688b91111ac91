"""What is seen through walls that no view has mapped: by hand, and between two rooms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from rooms import SMALL, remember, stand, truly_seen

from renderers import Camera
from spatial_memory import ViewMemory
from spatial_memory.freespace import behind_unknown
from spatial_memory.sight import Sight, sight_of
from spatial_memory.views import make_view


def sight(z: float, depth: float) -> Sight:
    """Of a camera at (0, 0, z) that looks forward and shows the same depth but in one corner."""
    camera = Camera.from_fov(60.0, 32, 24).moved(forward=z)
    rgb, wall = np.zeros((24, 32, 3), np.float32), np.full((24, 32), depth, np.float32)
    wall[0, 0] = 1.0
    return sight_of(make_view(rgb, wall, camera, "observed", None), 32)


def hidden(eyes: list[float], z: float, *sights: Sight) -> bool:
    """Whether eyes at (0, 0, each) see (0, 0, z) across a gap only."""
    places = np.array([[0.0, 0.0, eye] for eye in eyes])
    return bool(behind_unknown(np.array([[0.0, 0.0, z]], np.float32), places, sights, 0.03)[0])


def test_a_gap_is_what_no_view_has_looked_through_between_what_views_have() -> None:
    """One view has looked through 0 to 2, the other through 3 to 8."""
    near, beyond = sight(0.0, 2.0), sight(3.0, 5.0)
    assert hidden([0.0], 6.0, near, beyond)
    assert not hidden([0.0], 1.9, near, beyond)
    assert not hidden([0.0], 6.0, near, beyond, sight(1.5, 2.0))  # has looked through the gap
    assert hidden([0.0], 6.0, near, beyond, sight(1.5, 0.7))  # and this one has not
    assert not hidden([3.5], 6.0, near, beyond)


def test_unknown_space_at_the_start_is_no_gap() -> None:
    """Whoever steps back from where a photograph was taken still sees what it shows."""
    assert not hidden([-2.5], 1.9, sight(0.0, 2.0))


def test_one_eye_that_sees_it_is_enough() -> None:
    near, beyond = sight(0.0, 2.0), sight(3.0, 5.0)
    assert not hidden([0.0, 3.5], 6.0, near, beyond)
    assert hidden([0.0, 0.5], 6.0, near, beyond)


def test_unknown_pixels_prove_nothing_and_the_sky_all() -> None:
    near, beyond = sight(0.0, 2.0), sight(3.0, 5.0)
    assert hidden([0.0], 6.0, near, beyond, sight(1.5, np.nan))
    assert not hidden([0.0], 6.0, near, beyond, sight(1.5, np.inf))


def test_a_view_has_looked_through_what_it_does_not_hold_itself() -> None:
    """Generated views hold new pixels only, but were rendered as a whole."""
    camera = Camera.from_fov(60.0, 32, 24).moved(forward=1.5)
    rgb, depth = np.zeros((24, 32, 3), np.float32), np.full((24, 32), 2.0, np.float32)
    known = np.zeros((24, 32), np.bool_)
    known[:, :4] = True
    middle = sight_of(make_view(rgb, depth, camera, "generated", known), 32)
    assert not hidden([0.0], 6.0, sight(0.0, 2.0), sight(3.0, 5.0), middle)


def test_the_memory_does_not_look_through_walls_that_it_has_not_seen() -> None:
    """The left view looks past the wall, and the target across what it sees, at the wall."""
    left, right = stand(-3.0, 0.5, 20.0), stand(0.5, 3.0, 150.0)
    target = stand(-2.5, 2.5, 100.0)
    assert truly_seen(target, left).any() and not truly_seen(target, right).any()
    memory = remember([left, right])
    hit = memory.retrieve([target], k=2)
    assert hit.view_ids == (0,)
    assert hit.candidates[1].shows > 0.2
    assert hit.reasons[1].endswith("but across space that no view has looked through")
    assert abs(hit.coverage - truly_seen(target, left).mean()) < 0.05


def test_a_single_view_is_still_found_from_the_side_and_from_behind() -> None:
    view = stand(-2.0, 1.5, 0.0)
    memory = remember([view])
    for target in (view.moved(right=0.8), view.moved(forward=-0.8), view.moved(yaw_degrees=25.0)):
        assert memory.retrieve([target], k=1).view_ids == (0,)


FINE = replace(SMALL, detail=0.0)
"""Surfels may be as fine as views are."""


def wall(memory: ViewMemory, distance: float, provenance: str = "observed") -> None:
    """A view of a flat wall at z = 8, from so far away."""
    camera = Camera.from_fov(60.0, 96, 64).moved(forward=8.0 - distance)
    rgb, depth = np.zeros((64, 96, 3), np.float32), np.full((64, 96), distance, np.float32)
    memory.write(rgb, depth, camera, provenance)


def test_finer_samples_take_the_place_of_coarse_surfels() -> None:
    memory = ViewMemory(FINE)
    wall(memory, 8.0)
    coarse = memory.surfels.radii.max()
    wall(memory, 2.6)
    points, radii = memory.surfels.points.copy(), memory.surfels.radii.copy()
    inside = (abs(points[:, 0]) < 1.2) & (abs(points[:, 1]) < 0.8)  # well in sight of the second
    outside = (abs(points[:, 0]) > 1.8) | (abs(points[:, 1]) > 1.3)
    assert inside.any() and radii[inside].max() < 0.4 * coarse
    assert outside.any() and np.allclose(radii[outside], coarse)
    assert len(points) == memory.surfels.alive
    far = Camera.from_fov(60.0, 96, 64)
    assert memory.retrieve([far], k=1).coverage > 0.99
    memory.forget(1)  # what the far view has seen of the finer surfels stays
    assert memory.retrieve([far], k=1).coverage > 0.99


def test_much_finer_and_worse_samples_leave_coarse_surfels() -> None:
    for distance, provenance in ((0.5, "observed"), (2.6, "generated")):
        memory = ViewMemory(FINE)
        wall(memory, 8.0)
        count, coarse = len(memory.surfels), memory.surfels.radii.max()
        wall(memory, distance, provenance)
        assert np.count_nonzero(memory.surfels.radii == coarse) == count
