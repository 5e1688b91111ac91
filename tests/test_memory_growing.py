"""What makes the map grow, and that growing changes nothing: by hand, and beside a plain way."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_memory import columns
from spatial_memory.columns import LARGE, RESERVE, Columns, grown, room_for
from spatial_memory.hashgrid import COVERED, NEW, HashGrid
from spatial_memory.observers import Observers
from spatial_memory.regions import specks
from spatial_memory.sampling import Samples

UP = (0.0, -1.0, 0.0)


def discs(places: list[tuple[float, float]], radius: float = 0.1) -> tuple[np.ndarray, ...]:
    """On level ground, by (x, z): points, normals and radii."""
    points = np.array([(x, 0.0, z) for x, z in places], np.float32).reshape(-1, 3)
    count = len(points)
    return points, np.full((count, 3), UP, np.float32), np.full(count, radius, np.float32)


def matches(known: tuple[np.ndarray, ...], samples: tuple[np.ndarray, ...]) -> list[int]:
    grid = HashGrid()
    grid.extend(known[0], known[2])
    depths = np.full(len(samples[0]), 2.0, np.float32)
    return grid.match((*samples, depths), known, 0.01, 0.6).tolist()


# ---------------------------------------------------------------- chinks


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ([], NEW),
        ([(0.14, 0.0)], NEW),  # three of the eight places lie within 0.125 m of it
        ([(0.14, 0.0), (-0.14, 0.0)], COVERED),  # six of them
        ([(0.12, 0.0), (-0.14, 0.0)], 0),  # within 1.25 radii it is the same surfel
        ([(0.30, 0.0), (-0.30, 0.0), (0.0, 0.30)], NEW),  # too far away
    ],
)
def test_a_chink_between_surfels_is_not_new(
    beside: list[tuple[float, float]], expected: int
) -> None:
    assert matches(discs(beside), discs([(0.0, 0.0)])) == [expected]


def test_neither_coarse_surfels_nor_other_surfaces_cover() -> None:
    sample, around = discs([(0.0, 0.0)]), [(0.14, 0.0), (-0.14, 0.0)]
    coarse = discs([(0.4, 0.0), (-0.4, 0.0)], radius=0.5)  # 5 times as large: the sample is finer
    assert matches(coarse, sample) == [NEW]
    deeper = discs(around)
    deeper[0][:, 1] = 0.03  # 3 cm below, where 1 % of 2 m is the same surface
    assert matches(deeper, sample) == [NEW]
    steep = discs(around)
    steep[1][:] = (1.0, 0.0, 0.0)
    assert matches(steep, sample) == [NEW]


# ---------------------------------------------------------------- specks


def samples_at(cells: list[tuple[int, int, int, int]]) -> Samples:
    count, three = len(cells), np.zeros((len(cells), 3), np.float32)
    one = np.ones(count, np.float32)
    at = np.array(cells, np.int32).reshape(-1, 4)
    return Samples(three, three, one, three, one, one, at, (10, 20))


def test_pieces_of_a_picture_by_hand() -> None:
    """200 cells. Touching at corners counts, the map's own surfaces in between part."""
    cells = [(0, 0, 1, 1), (1, 1, 2, 2), (5, 5, 1, 1), (5, 6, 1, 1), (9, 19, 1, 1), (5, 7, 1, 2)]
    samples, new = samples_at(cells), np.array([True, True, True, False, True, True])
    assert specks(samples, new, 0.0).tolist() == [False] * 6
    assert specks(samples, new, 0.01).tolist() == [False, False, True, False, True, False]
    assert specks(samples, new, 0.025).tolist() == [False, False, True, False, True, True]
    assert specks(samples, new, 0.026).tolist() == [True, True, True, False, True, True]
    none = samples_at([])
    assert specks(none, np.empty(0, np.bool_), 0.5).shape == (0,)


# ---------------------------------------------------------------- room


def test_room_doubles_and_then_is_had_at_once() -> None:
    assert room_for(1, 0) == 1024
    assert room_for(1025, 1024) == 2048
    assert room_for(5000, 1024) == 5000
    assert room_for(LARGE + 1, LARGE) == RESERVE
    assert room_for(RESERVE + 1, RESERVE) == 2 * RESERVE


@pytest.fixture
def tiny_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "LARGE", 2000)
    monkeypatch.setattr(columns, "RESERVE", 100_000)
    monkeypatch.setattr(columns, "STEP", 500)


@pytest.mark.usefixtures("tiny_reserve")
def test_columns_stay_where_they_are_once_they_are_large() -> None:
    table, places = Columns(number=(np.int64, ()), pair=(np.int32, (2,))), set()
    for start in range(0, 60_000, 500):
        table.append(500, number=np.arange(start, start + 500), pair=start)
        places.add(table.number.ctypes.data)
    np.testing.assert_array_equal(table.number, np.arange(60_000))
    np.testing.assert_array_equal(table.pair[:, 1], np.arange(60_000) // 500 * 500)
    assert len(places) <= 3  # of 1024, 2048 and 100,000 places


@pytest.mark.usefixtures("tiny_reserve")
def test_an_array_that_grows_keeps_what_it_has_and_adds_zeros() -> None:
    array = np.arange(1, 11)
    array = grown(array, 5)
    assert len(array) == 10
    array = grown(array, 11)
    assert len(array) == 20  # twice as many while it is small
    array = grown(array, 2_000)
    array = grown(array, 2_001)
    assert len(array) == 2_500  # and then a step
    assert len(grown(array, 9_000)) == 9_000
    assert array[:10].tolist() == [*range(1, 11)] and not array[10:].any()


@pytest.mark.usefixtures("tiny_reserve")
def test_a_grid_that_grows_bit_by_bit_finds_what_one_that_is_made_at_once_finds() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(-3.0, 3.0, (9_000, 2)).tolist()
    known, samples = discs(places, 0.05), discs(rng.uniform(-3, 3, (500, 2)).tolist(), 0.05)
    grid = HashGrid()
    for end in (1, 700, 1999, 2001, 2500, 9_000):
        grid.extend(known[0][:end], known[2][:end])
        gone, moved = np.arange(end - 1, end // 2, -7), np.arange(end - 2, end // 2, -9)
        grid.remove(gone)
        known[2][gone] = 0.0
        moved = moved[known[2][moved] > 0.0]
        known[0][moved, 0] += 0.3
        grid.moved(moved, known[0], known[2])
    depths = np.full(500, 2.0, np.float32)
    assert grid.match((*samples, depths), known, 0.01, 0.6).tolist() == matches(known, samples)


@pytest.mark.usefixtures("tiny_reserve")
def test_observers_that_grow_keep_what_they_know() -> None:
    observers, rng = Observers(), np.random.default_rng(1)
    seen = rng.random((40, 6_400)) < 0.3
    for view_id, row in enumerate(seen):
        observers.add_surfels(160)
        rows = np.flatnonzero(row[: 160 * (view_id + 1)])
        observers.add(rows, view_id)
    for view_id, row in enumerate(seen):
        expected = np.flatnonzero(row[: 160 * (view_id + 1)])
        np.testing.assert_array_equal(observers.seen_by(view_id), expected)
