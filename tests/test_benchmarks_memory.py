"""The benchmark of the memory: its worlds, its truth, the rules it compares, and a tiny run."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks import memory, memory_growth, metrics
from benchmarks.memory_casting import SIZE, World, pose
from benchmarks.memory_picture import RIGHT, TARGET, WRONG, plans
from benchmarks.memory_rules import RULES, FieldOfView, Latest, NearestPose, Ours
from benchmarks.memory_truth import Question, ask, best_cover, fooled, truth
from benchmarks.memory_vmem import VMem, _spread, _surfels_of
from benchmarks.memory_worlds import WORLDS, block, wall
from benchmarks.metrics import Metric
from renderers import Camera, SceneError
from spatial_memory import MemoryConfig

SMALL = MemoryConfig(surfel_side=64, sight_side=96, evidence_side=64)
"""A coarse memory, so that tests are fast."""


def looking(x: float, z: float, heading: float, size: tuple[int, int] = SIZE) -> Camera:
    """A camera 1.5 m above (x, z) that looks along ``heading`` degrees: 0 is z, 90 is x."""
    way = math.radians(heading)
    ahead = (x + math.sin(way), -1.5, z + math.cos(way))
    return Camera.look_at((x, -1.5, z), ahead, 75.0, *size)


def world_of(*boxes: object) -> World:
    return World(np.array(boxes, np.float64), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


PARTITION = world_of(
    block((-5, -0.1), (5, 0.1), 3.0), block((-5, 4), (5, 5), 3.0), block((-5, -5), (5, -4), 3.0)
)
"""Three walls along x: 0.1 m around z = 0, and from 4 m on to both sides of it."""


def test_rays_hit_walls_where_geometry_says() -> None:
    eye = np.array([0.0, -1.5, 1.0])
    rays = np.array([[0, 0, 1.0], [0, 0, -1], [0, 0, 2], [1, 0, 1], [1, 0, 0], [0, 1, 0.1]])
    t, normals = PARTITION.first_hits(eye, rays)
    np.testing.assert_allclose(t, [3.0, 0.9, 1.5, 3.0, np.inf, np.inf])
    hit = [[0, 0, -1], [0, 0, 1], [0, 0, -1], [0, 0, -1], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(normals, hit)


def test_a_photograph_has_depth_along_the_axis_and_sky_above() -> None:
    rgb, depth = PARTITION.photograph(looking(0, 1, 0, (9, 9)))
    assert rgb.shape == (9, 9, 3) and np.isfinite(rgb).all()
    np.testing.assert_allclose(depth[4], 3.0, rtol=1e-6)  # z, not distance
    assert np.isinf(depth[0]).all()


def test_a_wall_has_its_doors_where_they_were_asked_for() -> None:
    """The lintel is at 2.1 m; the wall goes from 0 to 8 with a door from 2.55 to 3.45."""
    world = World(np.array(wall((0, 0), (8, 0), [3.0])), np.zeros((2, 3)))
    eye, x = np.array([3.0, -1.0, -2.0]), np.array([0.1, 2.5, 2.6, 3.4, 3.5, 7.9])
    goals = np.stack([x, np.full(6, -1.0), np.full(6, 0.0)], 1)
    assert world.blocked(eye, goals).tolist() == [True, True, False, False, True, True]
    assert world.blocked(eye, np.array([[3.0, -2.6, 0.5], [3.0, -1.9, 0.5]])).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("name", WORLDS)
def test_walks_stay_out_of_walls_and_see_surfaces(name: str) -> None:
    world = WORLDS[name](200)
    views = world.walk(200)
    assert all(world.free(pose(view)[1], 0.15) for view in views)
    for a, b in pairwise(views):
        assert not world.blocked(pose(a)[1], pose(b)[1][None])[0]  # nobody walks through a wall
    for view in views[::25]:
        depth = world.photograph(view)[1]
        assert depth.min() > 0.1 and np.isfinite(depth).mean() > 0.5


def test_the_street_is_walked_again_and_again() -> None:
    world = WORLDS["street"](0)
    first, second = (pose(view)[1] for view in world.walk(200)[3::100])
    assert 0 < np.linalg.norm(first - second) < 0.5


def test_storeys_lie_above_one_another() -> None:
    heights = [pose(view)[1][1] for view in WORLDS["stair"](60).walk(60)]
    assert heights[0] == pytest.approx(-1.5, abs=0.05)
    assert heights[-1] == pytest.approx(-4.5, abs=0.05)


@pytest.mark.parametrize("name", WORLDS)
def test_a_view_shows_all_that_itself_shows(name: str) -> None:
    world = WORLDS[name](20)
    for view in world.walk(20)[::7]:
        assert truth(world, [view], view).all()


def test_what_views_show_by_hand() -> None:
    """A point of the far wall, seen from the front, from too far aside, and through a wall."""
    point, normal = np.array([[0.0, -1.5, 4.0]]), np.array([[0.0, 0.0, -1.0]])
    views = [looking(0, 1, 0), looking(0, 1, 30), looking(0, 1, 40), looking(0, 1, 180)]
    views += [looking(0, -1, 0), looking(0, 8, 180)]
    shown = [PARTITION.shows(view, point, normal).item() for view in views]
    assert shown == [True, True, False, False, False, False]  # the field of view is 75 degrees
    alone = world_of(block((-5, 4), (5, 5), 3.0))
    assert alone.shows(looking(0, -1, 0), point, normal).item()
    assert not alone.shows(looking(0, 8, 180), point, normal).item()  # from behind


def test_nothing_between_is_the_same_both_ways() -> None:
    world, rng = WORLDS["rooms"](0), np.random.default_rng(0)
    places = rng.uniform([0.3, -2.3, 0.3], [11.7, -1.0, 7.7], (40, 3))
    places = np.stack([place for place in places if world.free(place)])
    between = np.stack([world.blocked(place, places) for place in places])
    np.testing.assert_array_equal(between, between.T)
    assert 0.3 < between.mean() < 0.95


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_best_cover_is_that_of_trying_all(k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(60):
        views, pixels = rng.integers(1, 13), rng.integers(1, 60)
        shown = rng.random((views, pixels)) < rng.choice([0.1, 0.3, 0.5])
        cover = best_cover(shown, k)
        choices = combinations(range(views), min(k, views))
        best = max(shown[list(choice)].any(0).sum() for choice in choices)
        assert cover.pixels == cover.bound == best and cover.proven
        assert len(cover.views) <= k and shown[list(cover.views)].any(0).sum() == best


def test_a_search_that_is_cut_short_says_what_it_cannot_exclude() -> None:
    rng, cut = np.random.default_rng(0), 0
    for _ in range(20):
        shown = rng.random((30, 80)) < 0.2
        quick, right = best_cover(shown, 3, nodes=0), best_cover(shown, 3)
        assert quick.pixels <= right.pixels <= quick.bound and right.proven
        cut += not quick.proven
    assert cut > 0


def test_answers_are_counted_by_hand() -> None:
    """Of 200 pixels the views show 120, 80 others, 1 and 2."""
    shown = np.zeros((4, 200), np.bool_)
    shown[0, :120] = shown[1, 120:] = shown[2, :1] = shown[3, :2] = True
    question = Question(looking(0, 0, 0), shown, best_cover(shown, 2))
    assert question.coverage([0, 3]) == 0.6 and question.coverage([1, 0]) == 1.0
    assert question.coverage([]) == 0.0
    assert question.right([0, 1, 2, 3]) == [True, True, False, True]


VIEWS = [looking(0, 1, 0), looking(0, 1, 180), looking(2, 1, 0), looking(0, -1, 0)]
"""The far wall; the partition; the far wall from aside; and the partition from the other side."""


def told(name: str) -> list[int]:
    """What a rule says of a target beside the first view."""
    rule = RULES[name]()
    memory.remember(PARTITION, VIEWS, rule)
    return list(rule.choose(looking(0.1, 1, 5), 2))


def test_every_rule_by_hand() -> None:
    """Nearest poses: 0 m and 0.09 rad, then 2 m through the wall against 1.9 m beside it."""
    assert told("latest") == [3, 2]
    assert told("pose") == [0, 2]
    assert told("fov") == [0, 3]  # as if the partition were not there
    assert sorted(told("vmem")) == [0, 2]
    assert told("ours")[0] == 0 and set(told("ours")) <= {0, 2}


def test_rules_that_know_too_little() -> None:
    few = {name: make() for name, make in RULES.items()}
    memory.remember(PARTITION, VIEWS[:1], *few.values())
    assert all(list(rule.choose(VIEWS[0], 4)) == [0] for rule in few.values())
    assert list(Latest().choose(VIEWS[0], 4)) == []


def test_walls_fool_poses_and_fields_of_view_by_hand() -> None:
    target, here, through = looking(0, 0.3, 90), looking(1.5, 1, 60), looking(0, -0.3, 90)
    long = world_of(*PARTITION.boxes, block((6, -5), (7, 5), 3.0))
    rules = NearestPose(), FieldOfView()
    for rule in rules:
        memory.remember(long, [here, through], rule)
        assert list(rule.choose(target, 1)) == [1]
    assert fooled(long, target, [through]) and not fooled(long, target, [here])
    ours = Ours(SMALL)
    memory.remember(long, [here, through], ours)
    assert ours.choose(target, 1)[0] == 0


def test_walls_fool_poses_and_fields_of_view_in_rooms() -> None:
    world = WORLDS["rooms"](100)
    views, rules = world.walk(100), (NearestPose(), FieldOfView())
    memory.remember(world, views, *rules)
    questions = ask(world, views, 4, 4, rules)
    assert len(questions) == 4
    for rule in rules:
        right = [good for q in questions for good in q.right(rule.choose(q.target, 4))]
        assert np.mean(right) < 0.6


def test_ours_finds_what_is_there() -> None:
    world, ours = WORLDS["corridor"](40), Ours(SMALL)
    views = world.walk(40)
    memory.remember(world, views, ours)
    for question in ask(world, views, 6, 4):
        chosen = ours.choose(question.target, 4)
        assert question.coverage(chosen) >= 0.9 and np.mean(question.right(chosen)) >= 0.7


def test_surfels_of_vmem_by_hand() -> None:
    """Squarely before a wall at 3 m: radius 0.5 * 3 / f, with f of a grid of 25 columns."""
    view = looking(0, 1, 0)
    points, normals, radii = _surfels_of(PARTITION.photograph(view)[1], view)
    focal = 12.5 / math.tan(math.radians(37.5))
    np.testing.assert_allclose(points[:, 2], 4.0, atol=1e-6)
    np.testing.assert_allclose(normals, np.tile([0, 0, -1.0], (len(points), 1)), atol=1e-6)
    middle = np.abs(points[:, 0]) + np.abs(points[:, 1] + 1.5) < 0.01
    np.testing.assert_allclose(radii[middle], 1.5 / focal, rtol=1e-6)
    assert len(points) == 25 * 15  # above and below is the sky
    assert (radii >= 1.5 / focal - 1e-6).all()


def test_vmem_merges_what_it_has_seen_before() -> None:
    rule = VMem()
    memory.remember(PARTITION, [VIEWS[0]], rule)
    before = len(rule)
    memory.remember(PARTITION, [VIEWS[0]], rule)
    assert len(rule) == before


def test_vmem_takes_poses_that_are_not_near_each_other() -> None:
    """Two of three are the same: the nearest is taken, then the one that is elsewhere."""
    poses = [pose(looking(x, 1, 0)) for x in (0.0, 0.001, 5.0)]
    assert _spread(looking(0, 1, 0), poses, 2) == [0, 2]
    assert _spread(looking(0, 1, 0), poses, 3) == [0, 1, 2]
    assert _spread(looking(0, 1, 0), [poses[0]] * 3, 2) == [0, 1]  # relaxing ends


def test_plans_show_what_was_chosen() -> None:
    """The target is blue; of two choices the right one is green, and the other red."""
    answers = {"pose": ([0, 3], [True, False]), "none": ([], [])}
    picture = plans(PARTITION, VIEWS, looking(1, 2, 0), answers)
    colors = {color for _, color in picture.getcolors(1 << 20) or ()}
    assert {TARGET, RIGHT, WRONG} <= colors
    half = picture.crop((picture.width // 2, 0, picture.width, picture.height))
    colors = {color for _, color in half.getcolors(1 << 20) or ()}
    assert TARGET in colors and not {RIGHT, WRONG} & colors


def test_every_case_of_a_tiny_run(tmp_path: Path) -> None:
    less = replace(memory.QUICK, views=(10,), targets=2, laps=2, lap=6, few=6, repeats=1)
    bench = replace(less, worlds=("corridor",), budget_s=0.0, pictures=tmp_path, absent={})
    found = {metric.key: metric for case in memory.all_cases(bench) for metric in case}
    assert {key.split("/")[0] for key in found} == {
        *("corridor 10", "corridor 10 behind walls", "corridor 10 kept", "corridor 10 retrieve"),
        *("corridor 10 write", "100k surfels, 6 views", "loops of 6 views", "written again"),
    }
    assert all(math.isfinite(metric.value) for metric in found.values())
    assert [path.name for path in tmp_path.iterdir()] == ["corridor 10.png"]
    for name in RULES:
        assert 0.0 <= found[f"corridor 10/{name}/worst"].value <= 1.0
        assert found[f"corridor 10 retrieve/{name}/best"].value > 0.0
    assert found["corridor 10/ours/coverage"].tolerance == 1.01
    assert found["corridor 10/pose/coverage"].tolerance is None
    others = max(found[f"corridor 10/{name}/coverage"].value for name in RULES if name != "ours")
    lead = found["corridor 10/ours/coverage"].value / others
    assert found["corridor 10/ours/lead"].value == pytest.approx(lead)
    assert found["corridor 10 write/ours/serial/calibration"].tolerance == memory.TOLERANCE_TIME
    assert found["loops of 6 views/lap 2/growth"].value >= 1.0
    assert found["written again/corridor/merged"].value > 0.95


def test_targets_of_the_memory() -> None:
    def target(key: str) -> float | None:
        return memory.target_of(Metric(key, 1.0, "", "higher"))

    assert target("rooms 10/ours/coverage") == 0.98 and target("rooms 10/pose/coverage") is None
    assert target("rooms 10/ours/lead") == 1.0
    assert target("rooms 10 behind walls/ours/precision") == 0.9
    assert target("rooms 10/ours/precision") is None
    assert target("rooms 5000 retrieve/ours/best") == 60.0
    assert target("rooms 1000 retrieve/ours/best") is None
    assert target("100k surfels, 200 views/ours/best") == 15.0
    assert target("rooms 10 write/ours/best") == 60.0 and target("x write/vmem/best") is None
    assert target("loops of 100 views/lap 2/growth") == 1.02
    assert target("loops of 16 views/lap 2/growth") is None
    assert target("written again/rooms/merged") == 0.95


def test_a_world_that_is_not_there() -> None:
    with pytest.raises(SceneError, match="there is no world moon"):
        memory.main(memory.Options(worlds=("moon",)))


def test_modes_are_kept_apart() -> None:
    modes = [memory.Options(), memory.Options(quick=True), memory.Options(long=True)]
    assert [options.mode for options in modes] == ["full", "quick", "long"]
    assert memory.Options(quick=True, worlds=("rooms", "stair")).mode == "quick: rooms, stair"


def test_the_committed_baseline_of_the_memory_can_be_compared_with() -> None:
    for mode, run in metrics.load_runs(memory.BASELINE).items():
        assert run.mode == mode and len({m.key for m in run.metrics}) == len(run.metrics)
        gated = [metric for metric in run.metrics if metric.tolerance is not None]
        assert len(gated) > 50 and metrics.failures(run, run) == []


def test_growth_is_measured_by_stages_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_growth, "STAGES", (2, 4))
    monkeypatch.setattr(memory_growth, "TARGETS", 2)
    monkeypatch.setitem(memory_growth.WALKS, "street", ("street", SMALL))
    found = [metric for case in memory_growth.grow("street", 5) for metric in case]
    values = {metric.key: metric.value for metric in found}
    counts = [values[f"street {views}/kept/surfels"] for views in (2, 4, 5)]
    assert 0 < counts[0] < counts[1] <= counts[2]
    assert values["street 4/write/median"] <= values["street 4/write/most"]
    sheet = np.asarray(memory_growth.draw(found, ["street"]))
    for panel in np.split(sheet[20:], 2)[0], np.split(sheet[20:], 2)[1]:
        for half in np.split(panel, 2, axis=1):
            assert (half == memory_growth.COLORS[0]).all(-1).sum() > 20
    most = {m.key: memory_growth.target_of(m) for m in found if m.key.startswith("street 5/")}
    assert most["street 5/write/most"] == 60.0 and most["street 5/kept/surfels"] is None
    with pytest.raises(SceneError, match="no walk moon"):
        memory_growth.main(memory_growth.Options(walks=("moon",)))
