"""Long work stops between two of its parts, and leaves nothing half done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_world import SETTINGS, write_photo

import scenegen
from scenegen.stopping import Stopped, checkpoint, stoppable
from viewer.jobs import Job, Jobs


class After:
    """Asks to stop at the nth checkpoint, counted from 1."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_nothing_stops_where_nobody_asks() -> None:
    checkpoint()
    with stoppable(lambda: False):
        checkpoint()
        with stoppable(lambda: True), pytest.raises(Stopped):
            checkpoint()
        checkpoint()
    checkpoint()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "steps").rglob("*"))


def test_growth_stopped_anywhere_leaves_the_world_as_it_was(
    grown_world: Path, tmp_path: Path
) -> None:
    """Stopped at its first checkpoint, its fourth, and so on, until a step is made after all."""
    folder = shutil.copytree(grown_world, tmp_path / "house")
    world = scenegen.open(folder)
    before, count, kept = len(world.steps), len(world.splats), files(folder)
    view = world.camera0.moved(right=-0.3)
    for stops in range(1, 100, 3):
        try:
            with stoppable(After(stops)):
                list(world.grow([view]))
            break
        except Stopped:
            assert len(world.steps) == before
            assert len(world.splats) == count
            assert files(folder) == kept
    assert stops > 8
    assert len(world.steps) == before + 1
    world.close()
    again = scenegen.open(folder)
    assert len(again.steps) == before + 1
    again.close()


def test_creation_stopped_before_its_first_step_leaves_no_folder(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "house.png", 128, 96)
    for stops in (1, 3, 6):
        with stoppable(After(stops)), pytest.raises(Stopped):
            scenegen.create(photo, tmp_path / "world", extent="photo", **SETTINGS)
        assert not (tmp_path / "world").exists()


def test_job_that_is_cancelled_within_a_part_ends_there() -> None:
    told: list[Any] = []
    jobs = Jobs(lambda job, text, share: told.append(text))
    log: list[str] = []

    def work() -> Iterator[Any]:
        try:
            yield "begun", 0.0
            jobs.cancel()
            checkpoint()
            log.append("went on")
        finally:
            log.append("cleaned")

    assert not jobs.run(Job("Growing here", ""), work)  # type: ignore[arg-type]
    assert log == ["cleaned"]
    assert jobs.job is None
    assert told == ["", "begun", "stopping ...", ""]
