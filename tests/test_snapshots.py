"""Memories set aside: the same to the bit as made again, and never believed when they are not."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

import scenegen
from benchmarks import journal
from renderers import SceneError
from scenegen.world.snapshots import EVERY, KEPT
from scenegen.world.world import World
from spatial_memory import ViewMemory
from spatial_memory.sight import Sight

STEPS = 24
BOX = [[-1.0, -1.0, 4.0], [1.0, 1.0, 4.5]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps and edits of all kinds, on both sides of the moments that are set aside."""
    folder = tmp_path_factory.mktemp("snapshots") / "world"
    world = journal.begin(folder)
    for number in range(1, STEPS):
        journal.add(world, number)
        if number in (6, 19):
            world.pin(number - 1)
            world.erase(BOX if number == 6 else [[c + 0.2 for c in corner] for corner in BOX])
            world.forget(number - 3)
    world.close()
    scenegen.open(folder).close()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "world"))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are written to a memory, by number."""
    steps, write = [], ViewMemory.write

    def noted(self: ViewMemory, *parts: object) -> int:
        steps.append(write(self, *parts))  # type: ignore[arg-type]
        return steps[-1]

    monkeypatch.setattr(ViewMemory, "write", noted)
    return steps


def anew(folder: Path) -> World:
    """The world with its memory made from the first step on."""
    bare = folder.with_name("bare")
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("cache"), dirs_exist_ok=True)
    shutil.rmtree(bare / "cache", ignore_errors=True)
    return scenegen.open(bare)


def same(one: World, two: World) -> bool:
    """Bit-identical splats, surfels, observers, pixels, sights, pins and retrievals."""
    a, b = one.memory, two.memory
    looks = [journal.CAMERA.moved(yaw_degrees=17.0 * i, right=0.1 * i) for i in range(8)]
    return (
        torch.equal(one.splats.means, two.splats.means)
        and list(a.views) == list(b.views)
        and a.views.next_id == b.views.next_id
        and a.pinned == b.pinned
        and all(_bits(a.views[i]) == _bits(b.views[i]) for i in a.views)
        and all(_numbers(a.sights[i]) == _numbers(b.sights[i]) for i in a.views)
        and _arrays(a) == _arrays(b)
        and all(a.retrieve([c], k=6) == b.retrieve([c], k=6) for c in looks)
    )


def _bits(view: object) -> list[object]:
    parts = vars(view)
    return [parts["provenance"], *(parts[n].numpy().tobytes() for n in ("rgb", "depth", "known"))]


def _numbers(sight: Sight) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in vars(sight).values()]


def _arrays(memory: ViewMemory) -> dict[str, bytes]:
    return {name: column.tobytes() for name, column in memory.surfels.arrays().items()}


def test_a_snapshot_is_the_memory_to_the_bit_and_so_is_what_grows_on_it(
    folder: Path, written: list[int]
) -> None:
    quick = scenegen.open(folder)
    assert written == []
    slow = anew(folder)
    assert len(written) == len(slow.steps) == STEPS
    assert same(quick, slow)
    for world in (quick, slow):
        journal.add(world, 50)
        world.erase([[-0.5, -0.5, 4.0], [0.5, 0.5, 5.0]])
        world.forget(22)
        journal.add(world, 51)
    assert same(quick, slow)
    written.clear()
    assert same(scenegen.open(folder), slow)
    assert len(written) == 2


def test_going_back_starts_at_the_snapshot_before(folder: Path, written: list[int]) -> None:
    world = scenegen.open(folder)
    world.undo(9)
    assert 0 < len(written) < EVERY
    assert same(world, anew(folder))
    world.redo(9)
    assert same(world, anew(folder))
    assert len(list((folder / "cache").iterdir())) <= KEPT


def test_growing_sets_aside_and_what_was_done_to_the_memory_by_hand_is_not(
    tmp_path: Path, written: list[int]
) -> None:
    world = journal.begin(tmp_path / "world")
    for number in range(1, EVERY):
        journal.add(world, number)
    world.memory.erase(BOX)
    world.memory.pin(1)
    list(world.visit([]))
    assert len(list((tmp_path / "world" / "cache").iterdir())) == 1
    written.clear()
    again = scenegen.open(tmp_path / "world")
    assert not written and not again.memory.pinned
    assert same(again, anew(tmp_path / "world"))


def _resealed(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        arrays = {name: value.copy() for name, value in load(data[32:]).items()}
        change(arrays)
        content = save(arrays)
        return hashlib.sha256(content).digest() + content

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:40],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes(len(data)),
        _resealed(lambda arrays: arrays.pop("views")),
        _resealed(lambda arrays: arrays["views"].__setitem__(0, 999)),
        _resealed(lambda arrays: arrays["sight_shapes"].fill(0)),
        _resealed(lambda arrays: arrays["sight_poses"].fill(float("nan"))),
        _resealed(lambda arrays: arrays["surfel_radii"].fill(float("nan"))),
        _resealed(lambda arrays: arrays["surfel_entry_views"].fill(77)),
        _resealed(lambda arrays: arrays["mask_sizes"].fill(1 << 40)),
        _resealed(lambda arrays: arrays["provenances"].fill(9)),
    ],
)
def test_a_damaged_snapshot_is_not_believed(
    folder: Path, damage: Callable[[bytes], bytes], written: list[int]
) -> None:
    want = _arrays(scenegen.open(folder).memory)
    for path in (folder / "cache").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    world = scenegen.open(folder)
    assert len(written) == STEPS and _arrays(world.memory) == want
    for view_id in world.memory.views:
        assert world.memory.views[view_id].known.any()


def test_a_snapshot_of_another_release_is_not_looked_at(
    folder: Path, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenegen.world.snapshots.code", lambda: "another")
    scenegen.open(folder).close()
    assert len(written) == STEPS


def test_views_that_are_missing_or_damaged_are_found(folder: Path) -> None:
    view = folder / "steps" / "0004" / "view.safetensors"
    data = view.read_bytes()
    view.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    world = scenegen.open(folder)
    with pytest.raises(SceneError, match=r"step 4 of the world .* is damaged"):
        _ = world.memory.views[4]
    view.unlink()
    with pytest.raises(SceneError, match=r"step 4 of the world .* is damaged"):
        scenegen.open(folder)
