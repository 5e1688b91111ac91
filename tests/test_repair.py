"""Journals that are lost or damaged, and made again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_cli import fails

import scenegen
from benchmarks import journal
from renderers import SceneError
from scenegen.export import read_splats
from scenegen.world import repair_world
from scenegen.world.records import RECORD
from scenegen.world.store import Store
from scenegen.world.world import World


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0 - 1 - pin - erase - 4 on main, and 5 - 6 beside it after 1, on "other"."""
    folder = tmp_path_factory.mktemp("repair") / "world"
    world = journal.begin(folder)
    journal.add(world, 1)
    world.pin(1)
    world.erase([[-9, -9, 4], [0, 9, 5]])
    journal.add(world, 2)
    world.switch(1)
    world.branch("other")
    journal.add(world, 3)
    journal.add(world, 4)
    world.close()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "world"))


def seals(world: World) -> dict[int, str]:
    return world.journal.seals


def lose(folder: Path) -> None:
    for file in folder.glob("world.db*"):
        file.unlink()


def cut(folder: Path) -> None:
    database = folder / "world.db"
    database.write_bytes(database.read_bytes()[:3000])


def scramble(folder: Path) -> None:
    database = folder / "world.db"
    database.write_bytes(bytes(len(database.read_bytes())))


def empty(folder: Path) -> None:
    (folder / "world.db").write_bytes(b"")


def change(statement: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        connection = sqlite3.connect(folder / "world.db")
        with connection:
            connection.execute(statement)
        connection.close()

    return act


@pytest.mark.parametrize(
    "damage",
    [
        lose, cut, scramble, empty,
        change("UPDATE entries SET body = replace(body, '64', '65') WHERE id = 1"),
        change("DELETE FROM entries WHERE id = 1"),
        change("UPDATE meta SET value = '77' WHERE key = 'sky_radius'"),
        change("DROP TABLE entries"),
    ],
)  # fmt: skip
def test_the_journal_is_made_again_to_the_letter(
    folder: Path, made: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = scenegen.open(made)
    damage(folder)
    with pytest.raises(SceneError, match=r"scenegen (repair|switch)"):
        scenegen.open(folder)
    fails(capsys, "create", "nothing.png", "--out", str(folder))
    assert (folder / "steps/0006").is_dir()
    said = repair_world(folder)
    assert said.rebuilt and not said.lost and not said.damaged
    world = scenegen.open(folder)
    assert seals(world) == seals(whole) and world.settings["sky_radius"] == 60.0
    assert world.journal.branches == {"main": 4, "other": 6}
    assert world.head == 6 and torch.equal(world.splats.means, whole.splats.means)
    world.switch("main")
    whole = scenegen.open(made)
    assert torch.equal(world.splats.means, torch.cat([c.means for c in whole.at(4).chunks]))
    assert journal.add(world, 9).id == 7
    assert not repair_world(folder).rebuilt


def test_a_whole_world_is_left_alone(folder: Path) -> None:
    before = (folder / "world.db").read_bytes()
    said = repair_world(folder)
    assert (said.rebuilt, said.entries, said.head, said.damaged) == (False, 7, 6, {})
    assert (folder / "world.db").read_bytes() == before


def test_what_cannot_be_restored_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lose(folder)
    (folder / "steps" / "0002" / RECORD).write_text("{}")
    (folder / "steps" / "0006" / "view.safetensors").write_bytes(b"x")
    said = repair_world(folder)
    assert list(said.lost) == ["steps/0002", "entry 3", "entry 4"]
    assert said.damaged.keys() == {6} and said.whole == said.head == 5
    assert "entry 5 is the newest that is whole" in "\n".join(said.lines())
    world = scenegen.open(folder)
    assert [step.id for step in world.steps] == [0, 1, 5]
    assert journal.add(world, 9).id == 7 and (folder / "steps" / "0004").is_dir()


def test_splats_are_saved_where_nothing_says_what_they_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lose(folder)
    for record in folder.glob(f"steps/*/{RECORD}"):
        record.unlink()
    (folder / "steps" / "0001" / "splats.safetensors").write_bytes(b"x")
    assert "--splats" in fails(capsys, "repair", str(folder))
    from scenegen.cli import main

    assert main(["repair", str(folder), "--splats", str(tmp_path / "saved.ply")]) == 0
    assert len(read_splats(tmp_path / "saved.ply")) == 4 * 500


def test_worlds_of_earlier_releases_get_records_with_the_first_write(folder: Path) -> None:
    for record in folder.glob(f"steps/*/{RECORD}"):
        record.unlink()
    journal.add(scenegen.open(folder), 9)
    assert len(list(folder.glob(f"steps/*/{RECORD}"))) == 8
    lose(folder)
    assert not repair_world(folder).lost


def test_records_of_a_later_release_are_left_to_it(folder: Path) -> None:
    lose(folder)
    path = folder / "steps" / "0000" / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(SceneError, match="it has format 99"):
        repair_world(folder)
    with pytest.raises(SceneError, match="there is nothing to repair"):
        repair_world(folder / "nowhere")


def test_a_world_that_is_written_to_is_not_repaired(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenegen.world.repair.PATIENCE", 0.1)
    store = Store.open(folder)
    with store.writing(), pytest.raises(SceneError, match="is in use"):
        repair_world(folder)
