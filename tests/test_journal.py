"""The tree: undo, redo, branches, collection, one writer, hashes, provenance."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from test_cli import fails
from test_memory_cli import says
from test_world import SETTINGS, write_photo
from test_world_edits import database, reopened, same

import scenegen
from renderers import Camera, SceneError
from scenegen.world import ORIGINS, Step
from scenegen.world.journal import Journal, Row
from scenegen.world.world import World


@pytest.fixture
def folder(grown_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown_world, tmp_path / "world"))


@pytest.fixture
def world(folder: Path) -> World:
    return scenegen.open(folder)


def look(world: World) -> torch.Tensor:
    """Two small views: what a visitor would notice."""
    cameras = [world.camera0, world.camera0.moved(right=0.2, yaw_degrees=8)]
    return torch.stack([world.render(camera.resized(64, 48)).rgb for camera in cameras])


def test_twenty_steps_back_and_forth_and_a_branch_are_the_same_to_the_bit(tmp_path: Path) -> None:
    """Steps and edits in turn; each moment is drawn when it is made, and compared ever after."""
    photo = write_photo(tmp_path / "photo.png", 64, 64)
    world = scenegen.create(photo, tmp_path / "w", extent="photo", **SETTINGS)
    moments = {world.head: look(world)}
    home = world.camera0
    while len(moments) < 21:
        n = len(moments)
        if n % 4 == 3:
            world.pin(world.steps[-1].id)
        elif n % 4 == 0:
            world.erase([[-0.4 * n, -9, 2], [1.0 - 0.4 * n, 9, 90]])
        else:
            list(world.grow([home.moved(yaw_degrees=(-1) ** n * 2.5 * n, right=0.02 * n)]))
        moments[world.head] = look(world)
    order = sorted(moments)
    assert len(order) == 21 and len(world.steps) > 8
    for entry in order[-2::-1]:
        assert world.undo()[0].id > entry == world.head
        assert torch.equal(look(world), moments[entry])
    with pytest.raises(SceneError, match="cannot undo 1 entries"):
        world.undo()
    assert torch.equal(look(reopened(world)), moments[0])
    world = scenegen.open(tmp_path / "w")
    for entry in order[1:]:
        assert world.redo()[-1].id == entry == world.head
        assert torch.equal(look(world), moments[entry])
    with pytest.raises(SceneError, match="cannot redo 1 entries"):
        world.redo()
    world.switch(order[5])
    world.branch("aside")
    list(world.grow([home.moved(yaw_degrees=9)]))
    there = look(world)
    world.switch("main")
    assert world.head == order[-1] and torch.equal(look(world), moments[order[-1]])
    world.switch("aside")
    assert torch.equal(look(world), there) and torch.equal(look(reopened(world)), there)


def test_undo_goes_back_in_memory_and_walk_as_well(world: World) -> None:
    end = world.walker.cam_from_world
    world.erase([[-24, -16, 5], [-1.5, 1.2, 60]])
    list(world.grow("left", 0.3))
    assert not torch.equal(world.walker.cam_from_world, end)
    assert [entry.id for entry in world.undo(2)] == [4, 3]
    assert torch.equal(world.walker.cam_from_world, end)
    fresh = scenegen.open(world.folder)
    assert same(world, fresh) and list(fresh.memory.views) == [0, 1, 2]


def test_growing_after_an_undo_starts_another_line_and_keeps_the_old_one(world: World) -> None:
    world.undo()
    list(world.grow([world.camera0.moved(yaw_degrees=-15)]))
    assert [step.id for step in world.steps] == [0, 1, 3]
    assert list(world.memory.views) == [0, 1, 3]
    with pytest.raises(SceneError, match=r"none were undone\n.*scenegen switch .* N"):
        world.redo()
    world.switch(2)
    assert world.journal.branch is None and world.journal.branches == {"main": 3}
    assert [line.split(",")[0] for line in world.log()] == [
        "o 3 (main): step", "| @ 2 (head): step", "|/", "* 1: step", "* 0: step",
    ]  # fmt: skip


def test_the_tree_is_drawn(world: World) -> None:
    """0 - 1 - 2, and beside it 1 - 3 - 4."""
    world.undo()
    world.pin(1)
    world.pin(0)
    world.switch(2)
    world.branch("old")
    marks = [line.split(":")[0] for line in world.log()]
    assert marks == ["o 4 (main)", "o 3", "| @ 2 (old, head)", "|/", "* 1", "* 0"]


def test_branches(world: World) -> None:
    world.branch("other")
    assert world.journal.branch == "other" and world.journal.branches == {"main": 2, "other": 2}
    world.undo()
    assert reopened(world).journal.branches == {"main": 2, "other": 1}
    world = scenegen.open(world.folder)
    for name in ("7", "", "-x", "a b", "../up", "x" * 65):
        with pytest.raises(SceneError, match="cannot be the name of a branch"):
            world.branch(name)
    with pytest.raises(SceneError, match="there is a branch 'main' already"):
        world.branch("main")
    with pytest.raises(SceneError, match="the world is on it"):
        world.drop_branch("other")
    with pytest.raises(SceneError, match=r"no branch or entry 'nowhere'\n.*entries: 0-2\n"):
        world.switch("nowhere")
    world.switch("main")
    world.drop_branch("other")
    assert reopened(world).journal.branches == {"main": 2}


def test_gc_removes_what_nothing_leads_to_and_only_that(world: World) -> None:
    home = world.camera0
    world.undo()
    world.branch("kept")
    list(world.grow([home.moved(yaw_degrees=-15)]))
    world.pin(3)
    world.undo()
    world.switch("main")
    want = look(world)
    would = world.gc(dry_run=True)
    assert would.entries == (2, 4) and would.bytes > 10_000
    assert (world.folder / "steps/0002").is_dir()
    assert world.gc() == would and world.gc().entries == ()
    assert not (world.folder / "steps/0002").exists()
    again = reopened(world)
    assert torch.equal(look(again), want) and sorted(again.journal.entries) == [0, 1, 3]
    again.switch("kept")
    assert [step.id for step in again.steps] == [0, 1, 3]
    again.pin(1)
    assert again.head == 5  # numbers are not used twice


def test_a_second_writer_is_refused_and_readers_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys, scenegen\n"
        f"world = scenegen.open({str(folder)!r})\n"
        "with world.writing():\n    print('mine', flush=True)\n    sys.stdin.readline()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout and other.stdout.readline() == "mine\n"
        world = scenegen.open(folder)  # reads while the other may write
        monkeypatch.setattr("scenegen.world.store.PATIENCE", 0.2)
        world = scenegen.open(folder)
        with pytest.raises(SceneError, match="another process is writing to it"):
            world.pin(1)
        assert world.edits == ()
    finally:
        other.communicate("done\n")
    world.pin(1)
    assert len(reopened(world).edits) == 1


def test_what_another_wrote_is_taken_over_before_one_writes(world: World) -> None:
    other = scenegen.open(world.folder)
    other.pin(1)
    assert world.memory.pinned == set() and world.refresh() and not world.refresh()
    assert world.memory.pinned == {1}
    other.forget(2)
    world.pin(0)
    assert [entry.kind for entry in world.edits] == ["pin", "forget", "pin"]
    assert same(world, scenegen.open(world.folder))


def test_two_threads_take_turns_and_one_cannot_write_within_its_own_step(world: World) -> None:
    with world.writing():
        with pytest.raises(SceneError, match="a step is being made right now"):
            world.pin(1)
        late = threading.Thread(target=world.pin, args=(2,))
        late.start()
        late.join(0.2)
        assert late.is_alive() and world.memory.pinned == set()
    late.join()
    assert world.memory.pinned == {2}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = replace(body, 'generated', 'observed') WHERE id = 2",
        "UPDATE entries SET parent = 0 WHERE id = 2",
        "UPDATE entries SET body = '{' WHERE id = 2",
        "UPDATE entries SET seal = 'x' WHERE id = 2",
        "DELETE FROM entries WHERE id = 1",
        "UPDATE entries SET parent = 2 WHERE id = 1",  # round in a circle
        "UPDATE meta SET value = '77' WHERE key = 'head'",
    ],
)
def test_a_changed_journal_is_found_and_the_way_back_is_named(
    folder: Path, statement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    database(folder, statement)
    whole = 0 if "id = 1" in statement else 2 if "head" in statement else 1
    with pytest.raises(SceneError, match=rf"scenegen switch .* {whole}` goes back"):
        scenegen.open(folder)
    if "head" not in statement:
        assert "damaged" in says(capsys, "log", folder)
    assert f"at entry {whole}, on no branch" in says(capsys, "switch", folder, whole)
    assert scenegen.open(folder).head == whole
    world = scenegen.open(folder)
    list(world.grow([world.camera0.moved(yaw_degrees=-15)]))
    there = {number for number in (1, 2) if f"DELETE FROM entries WHERE id = {number}" != statement}
    assert set(world.gc().entries) == {number for number in there if number > whole}
    assert same(world, scenegen.open(folder))


@pytest.mark.parametrize("name", ["splats.safetensors", "view.safetensors"])
def test_a_changed_file_is_found_and_the_way_back_is_named(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "steps" / "0002" / name
    data = bytearray(file.read_bytes())
    data[-7] ^= 16
    file.write_bytes(data)
    message = fails(capsys, "grow", folder, "--path", "left")
    assert f"{name} was changed" in message and f"scenegen switch {folder} 1" in message
    says(capsys, "switch", folder, 1)
    assert len(scenegen.open(folder).steps) == 2


def test_settings_that_were_changed_are_found(folder: Path) -> None:
    database(folder, "UPDATE meta SET value = '1.0' WHERE key = 'sky_radius'")
    with pytest.raises(SceneError, match="the settings of the world are damaged"):
        scenegen.open(folder)


def test_a_database_with_a_program_in_it_is_refused(folder: Path) -> None:
    database(folder, "CREATE VIEW evil AS SELECT load_extension('x')")
    with pytest.raises(SceneError, match="it holds more than tables"):
        scenegen.open(folder)


def test_where_splats_come_from(world: World) -> None:
    world.erase([[-24, -16, 5], [-1.5, 1.2, 60]])
    found = world.provenance()
    assert {len(column) for column in found.values()} == {len(world.splats)}
    assert found["step"].dtype == torch.int32 and found["origin"].dtype == torch.uint8
    for step, chunk in zip(world.steps, world.chunks, strict=True):
        mine = found["step"] == step.id
        assert torch.equal(world.splats.means[mine], chunk.means)
        assert {ORIGINS[i] for i in found["origin"][mine].tolist()} == {
            "generated" if step.id else "photograph"
        }


def test_a_step_says_which_weights_made_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.steps[2].info["weights"] == {"prior": None, "patch": None}
    from scenegen import models

    assert models.weights_hash("migan") == models.MODELS["migan"].sha256
    file = world.folder / "README.txt"
    monkeypatch.setattr("scenegen.models.used.shipped_path", lambda _: file)
    import hashlib

    assert models.weights_hash("dpt") == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_killed_beginning_may_be_begun_again(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.png", 64, 64)
    code = (
        "import os, scenegen\n"
        "from scenegen.world import stepfiles\n"
        "stepfiles.sync_folder = lambda *_: os._exit(9)\n"
        f"scenegen.create({str(photo)!r}, {str(tmp_path / 'w')!r}, **{SETTINGS!r})\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 9, result.stderr
    with pytest.raises(SceneError, match="takes the folder as it is"):
        scenegen.open(tmp_path / "w")
    world = scenegen.create(photo, tmp_path / "w", extent="photo", **SETTINGS)
    assert len(reopened(world).steps) == 1
    with pytest.raises(SceneError, match="already holds a world"):
        scenegen.create(photo, tmp_path / "w", extent="photo", **SETTINGS)


def test_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(capsys, "log", folder).startswith("@ 2 (main, head): step, generated by patch")
    text = says(capsys, "undo", folder)
    assert "undone: 2: step" in text and "at entry 1" in text
    assert "at entry 2" in says(capsys, "redo", folder)
    assert "at entry 0" in says(capsys, "undo", folder, "--steps", 2)
    assert "cannot undo" in fails(capsys, "undo", folder)
    assert "branch side starts at entry 0" in says(capsys, "branch", folder, "side")
    assert says(capsys, "branch", folder) == "  main: entry 0\n@ side: entry 0\n"
    assert "at entry 1, on no branch" in says(capsys, "switch", folder, 1)
    found = json.loads(says(capsys, "log", folder, "--json"))
    assert found["head"] == 1 and found["branch"] is None
    assert [entry["current"] for entry in found["entries"]] == [True, True, False]
    assert "1 entries would be removed: 2;" in says(capsys, "gc", folder, "--dry-run")
    assert "1 entries removed: 2;" in says(capsys, "gc", folder)
    assert "is deleted" in says(capsys, "branch", folder, "side", "--delete")
    assert "no branch to delete" in fails(capsys, "branch", folder, "--delete")
    assert "no branch or entry" in fails(capsys, "switch", folder, "side")
    for command in ("log", "undo", "redo", "branch", "gc"):
        assert "is not a world" in fails(capsys, command, folder.parent)


def test_seals_by_hand() -> None:
    """The same row after another one has another seal; numbers may be in any order."""
    camera = {"px_from_cam": [[9.0, 0, 4], [0, 9, 3], [0, 0, 1]], "width": 8, "height": 6}
    camera["cam_from_world"] = torch.eye(4).tolist()
    body = json.dumps({"provenance": "observed", "camera": camera, "info": {}, "files": {}})
    rows = [Row(5, None, "step", body, ""), Row(2, 5, "pin", '{"view": 5}', "")]
    first = rows[0].seal("")
    journal = Journal("w")
    journal.read([(rows[1], rows[1].seal(first)), (rows[0], first)])
    assert [entry.id for entry in journal.path(2)] == [5, 2] and not journal.broken
    step = journal.entries[5]
    assert isinstance(step, Step) and step.camera.width == 8
    assert isinstance(step.camera, Camera)
    journal = Journal("w")
    journal.read([(rows[1], rows[1].seal("")), (rows[0], first)])
    assert journal.broken == {2: "it was changed after it was written"}
