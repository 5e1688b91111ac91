"""Edits of a world's memory: recorded, replayed, refused, and sound whenever the process dies."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import trimesh

import scenegen
from renderers import SceneError
from scenegen import outpaint
from scenegen.export import DepthView
from scenegen.world.grow import Choice, choice_of
from scenegen.world.replay import in_box, replay, surfaces
from scenegen.world.world import World

HOUSE = [[-24.0, -16.0, 5.0], [-1.5, 1.2, 60.0]]
"""A box around the house on the left of the photograph, above the ground."""


@pytest.fixture
def folder(grown_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown_world, tmp_path / "world"))


@pytest.fixture
def world(folder: Path) -> World:
    return scenegen.open(folder)


def reopened(world: World) -> World:
    world.close()
    return scenegen.open(world.folder)


def same(one: World, two: World) -> bool:
    """Bit-identical splats, renders, surfels, pins and retrievals."""
    cameras = [one.camera0, one.camera0.moved(right=0.1, yaw_degrees=9)]
    a, b = one.memory.surfels.arrays(), two.memory.surfels.arrays()
    return (
        all(torch.equal(one.render(c).rgb, two.render(c).rgb) for c in cameras)
        and all(torch.equal(x.means, y.means) for x, y in zip(one.chunks, two.chunks, strict=True))
        and all(a[name].tobytes() == b[name].tobytes() for name in a)
        and one.memory.pinned == two.memory.pinned
        and all(one.memory.retrieve([c]) == two.memory.retrieve([c]) for c in cameras)
    )


def database(folder: Path, *statements: str) -> list:
    connection = sqlite3.connect(folder / "world.db")
    with connection:
        rows = [connection.execute(statement).fetchall() for statement in statements]
    connection.close()
    return rows[-1]


def test_all_edits_and_what_grows_after_them_are_the_same_after_a_reopen(world: World) -> None:
    world.pin(2)
    world.forget(1)
    world.erase(HOUSE)
    list(world.grow([world.camera0.moved(yaw_degrees=-10)]))
    world.pin(2, pinned=False)
    world.pin(6)
    again = reopened(world)
    assert [(edit.id, edit.parent, edit.kind) for edit in again.edits] == [
        (3, 2, "pin"), (4, 3, "forget"), (5, 4, "erase"), (7, 6, "unpin"), (8, 7, "pin"),
    ]  # fmt: skip
    assert list(again.memory.views) == [0, 2, 6] and again.memory.pinned == {6}
    assert same(scenegen.open(again.folder), again)
    assert len(again.chunks[3]) > 100  # grown in the box, after it was emptied


def test_live_and_reopened_are_the_same(world: World) -> None:
    world.pin(1)
    world.erase(HOUSE)
    list(world.grow([world.camera0.moved(yaw_degrees=-10)]))
    world.forget(2)
    assert same(world, scenegen.open(world.folder))


def test_pinned_views_are_taken_first_and_not_forgotten(world: World) -> None:
    world.pin(2)
    assert world.memory.retrieve([world.camera0]).view_ids[0] == 2
    with pytest.raises(SceneError, match=r"it is pinned\n.*scenegen memory unpin WORLD 2"):
        world.forget(2)
    assert len(world.edits) == 1
    world.pin(2, pinned=False)
    world.forget(2)
    assert 2 not in reopened(world).memory.views


def test_what_changes_nothing_is_not_recorded(world: World) -> None:
    world.pin(0)
    world.pin(0)
    world.pin(1, pinned=False)
    assert [edit.kind for edit in world.edits] == ["pin"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.forget(0), "it is a photograph"),
        (lambda w: w.forget(9), "no view 9"),
        (lambda w: w.pin(9), "no view 9"),
        (lambda w: w.pin(-1), "no view -1"),
        (lambda w: w.erase([[0, 0, 0], [-1, 1, 1]]), "not a box"),
        (lambda w: w.erase([[0, 0, 0], [1, 1, float("nan")]]), "not a box"),
        (lambda w: w.erase([[0, 0, 0], [1, 1, float("inf")]]), "not a box"),
        (lambda w: w.erase([[0, 0], [1, 1]]), "not a box"),
        (lambda w: w.erase([[900, 900, 900], [901, 901, 901]]), "nothing was erased"),
    ],
)
def test_what_cannot_be_done_is_refused_and_not_recorded(
    world: World, edit: Callable[[World], object], message: str
) -> None:
    with pytest.raises(SceneError, match=message):
        edit(world)
    assert world.edits == ()
    assert same(world, scenegen.open(world.folder))


def kept(world: World) -> list[torch.Tensor]:
    """The pixels of each step that a mesh is made of."""
    return [known for _, _, _, known in surfaces(world._store, world._state)]


def test_forgetting_keeps_the_splats_and_the_surfaces(world: World) -> None:
    before, pixels = world.render(world.camera0).rgb, kept(world)
    world.forget(1)
    assert torch.equal(world.render(world.camera0).rgb, before)
    assert all(torch.equal(a, b) for a, b in zip(kept(world), pixels, strict=True))
    hit = world.memory.retrieve([world.steps[1].camera])
    assert 1 not in hit.view_ids and 1 not in hit.reasons


def test_a_mesh_is_made_of_all_surfaces_after_a_view_was_forgotten(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant: list[DepthView] = []

    def fused(views: list[DepthView], max_triangles: int) -> trimesh.Trimesh:
        meant.extend(views)
        box = trimesh.creation.box()
        box.visual.vertex_colors = [200, 100, 50, 255]
        return box

    monkeypatch.setattr("scenegen.export.mesh_from_depth", fused)
    world.forget(1)
    world.erase(HOUSE)
    world.export(tmp_path / "world.glb")
    assert (tmp_path / "world.glb").stat().st_size > 500
    assert [view.camera for view in meant] == [step.camera for step in world.steps]
    for view, known in zip(meant, kept(world), strict=True):
        assert view.known is not None and torch.equal(view.known, known)


def test_erasing_takes_splats_surfels_and_surfaces_and_leaves_the_steps(world: World) -> None:
    files = {path: path.read_bytes() for path in world.folder.glob("steps/*/*")}
    surfels = torch.from_numpy(world.memory.surfels.points)
    want = int(in_box(world.splats.means, HOUSE).sum()), int(in_box(surfels, HOUSE).sum())
    erased = world.erase(HOUSE)
    assert (erased.splats, erased.surfels) == want and min(want) > 100
    again = reopened(world)
    assert not in_box(again.splats.means, HOUSE).any()
    assert not in_box(torch.from_numpy(again.memory.surfels.points), HOUSE).any()
    assert float((again.render(again.camera0).alpha < 0.7).float().mean()) > 0.05  # to be grown
    for step, known in zip(again.steps, kept(again), strict=True):
        remembered = again.memory.views[step.id].known
        assert float((known != remembered).float().mean()) < 1e-3  # the box's own surface
    after = {path: path.read_bytes() for path in world.folder.glob("steps/*/*")}
    record = world.folder / f"steps/{world.head:04d}/entry.json"
    assert after == files | {record: record.read_bytes()}


def test_what_was_erased_grows_again_and_is_not_erased_twice(world: World) -> None:
    world.erase(HOUSE)
    camera = world.camera0.moved(right=0.05)
    assert float((world.render(camera).alpha < 0.7).float().mean()) > 0.05
    list(world.grow([camera]))
    grown = in_box(world.chunks[3].means, [[-30, -30, 5], [0, 1.2, 300]])
    assert grown.sum() > 100
    again = reopened(world)
    assert float((again.render(camera).alpha < 0.7).float().mean()) < 0.01
    assert len(again.chunks[3]) == len(world.chunks[3])


def test_killed_between_record_and_apply_the_edit_is_there_at_the_next_open(folder: Path) -> None:
    code = (
        "import os, scenegen\n"
        "from scenegen.world.replay import State\n"
        "State.apply = lambda *_: os._exit(9)\n"
        f"scenegen.open({str(folder)!r}).forget(1)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 9, result.stderr
    world = scenegen.open(folder)
    assert list(world.memory.views) == [0, 2]
    world.pin(2)
    assert [edit.kind for edit in reopened(world).edits] == ["forget", "pin"]


def test_stopped_before_the_commit_nothing_has_happened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    world = scenegen.open(folder)
    for act in (lambda: world.forget(1), lambda: world.undo(), lambda: world.branch("other")):
        with monkeypatch.context() as patched:
            patched.setattr(world._store, "_put_meta", stop)  # the last act of each
            with pytest.raises(KeyboardInterrupt):
                act()
        assert len(world.memory.views) == 3 and world.head == 2
        there = scenegen.open(folder).journal
        for name in ("seals", "head", "branch", "branches", "left"):
            assert getattr(there, name) == getattr(world.journal, name)
    world.forget(1)  # and now it goes through
    assert len(reopened(world).edits) == 1


def as_format_2(folder: Path) -> None:
    """The world as it was before the journal became a tree, with a pin after the second step."""
    rows = database(folder, "SELECT id, parent, body FROM entries")
    old = []
    for number, parent, body in ((n, p, json.loads(b)) for n, p, b in rows):
        words = [json.dumps(body["camera"]), json.dumps(body["info"])]
        quoted = ["'" + word.replace("'", "''") + "'" for word in (body["provenance"], *words)]
        old.append(f"({number}, {'NULL' if parent is None else parent}, {', '.join(quoted)})")
    database(
        folder,
        "DROP TABLE entries",
        "DROP TABLE branches",
        "CREATE TABLE steps (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES steps(id), "
        "provenance TEXT NOT NULL, camera TEXT NOT NULL, info TEXT NOT NULL)",
        "CREATE TABLE edits (id INTEGER PRIMARY KEY, after INTEGER NOT NULL REFERENCES steps(id), "
        "kind TEXT NOT NULL, arguments TEXT NOT NULL, made_at TEXT NOT NULL)",
        f"INSERT INTO steps VALUES {', '.join(old)}",
        "INSERT INTO edits VALUES (1, 1, 'pin', '{\"view\": 1}', '2026-01-01T00:00:00+00:00')",
        "DELETE FROM meta WHERE key IN ('head', 'branch', 'seal', 'walker')",
        "UPDATE meta SET value = '2' WHERE key = 'format'",
    )


def as_format_1(folder: Path) -> None:
    """The world as the first release wrote it: no edits, and less about each choice."""
    as_format_2(folder)
    rows = database(folder, "SELECT id, info FROM steps")
    infos = {number: json.loads(info) for number, info in rows}
    for info in infos.values():
        for name in ("gains", "votes"):
            info.get("retrieved", {}).pop(name, None)
    quoted = {number: json.dumps(info).replace("'", "''") for number, info in infos.items()}
    database(
        folder,
        "DROP TABLE edits",
        "UPDATE meta SET value = '1' WHERE key = 'format'",
        *(f"UPDATE steps SET info = '{info}' WHERE id = {n}" for n, info in quoted.items()),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_world_of_format_1_opens_unchanged_and_is_upgraded_by_the_first_write(
    folder: Path, grown_world: Path
) -> None:
    as_format_1(folder)
    before = contents(folder)
    world = scenegen.open(folder)
    assert world.edits == () and same(world, scenegen.open(grown_world))
    assert world.recall_step(2).choice.gains == ()
    assert world.recall_step(2).lines()
    world.close()
    assert contents(folder) == before
    world = scenegen.open(folder)
    world.pin(1)
    assert reopened(world).memory.pinned == {1}
    assert database(folder, "SELECT value FROM meta WHERE key = 'format'") == [("3",)]


def test_a_world_of_format_2_keeps_its_edits_where_they_were(
    folder: Path, grown_world: Path
) -> None:
    as_format_2(folder)
    before = contents(folder)
    world = scenegen.open(folder)
    assert [(entry.id, entry.parent) for entry in world.journal.path(world.head)] == [
        (0, None), (1, 0), (3, 1), (2, 3),
    ]  # fmt: skip
    assert world.memory.pinned == {1} and world.settings["format"] == 2
    world.close()
    assert contents(folder) == before
    world = scenegen.open(folder)
    world.undo(2)
    assert reopened(world).settings["format"] == 3
    again = scenegen.open(folder)
    assert again.head == 1 and again.memory.pinned == set()
    again.redo(2)
    assert again.memory.pinned == {1}
    assert torch.equal(again.splats.means, scenegen.open(grown_world).splats.means)
    list(again.grow([again.camera0.moved(yaw_degrees=-12)]))
    assert again.head == 4 and list(scenegen.open(folder).memory.views) == [0, 1, 2, 4]


def test_walking_upgrades_as_well(folder: Path) -> None:
    as_format_1(folder)
    world = scenegen.open(folder)
    list(world.grow([world.camera0]))
    assert reopened(world).settings["format"] == 3


def test_a_newer_format_is_refused(folder: Path) -> None:
    database(folder, "UPDATE meta SET value = '4' WHERE key = 'format'")
    with pytest.raises(SceneError, match=r"format 4; this release reads up to 3"):
        scenegen.open(folder)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("paint", {"view": 1}),
        ("forget", {"view": 7}),
        ("forget", {}),
        ("erase", {"box": [1, 2]}),
        ("erase", {"box": [[0, 0, 0], [1, 1, "x"]]}),
    ],
)
def test_an_edit_that_cannot_be_made_says_so(folder: Path, kind: str, arguments: dict) -> None:
    world = scenegen.open(folder)
    with world.writing():
        world._store.add_edit(2, kind, arguments, "main")
    with pytest.raises(SceneError, match=r"edit 3 of the world .* is damaged"):
        scenegen.open(folder)


@pytest.fixture
def read_only(grown_world: Path, tmp_path: Path) -> Iterator[Path]:
    """A world on a disk that nothing can be written to."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        folder = Path(shutil.copytree(grown_world, disk / "world"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_world_in_a_read_only_place_can_be_looked_at_and_not_edited(
    read_only: Path, grown_world: Path
) -> None:
    world = scenegen.open(read_only)
    assert same(world, scenegen.open(grown_world))
    for edit in (lambda: world.pin(1), lambda: world.forget(1), lambda: world.erase(HOUSE)):
        with pytest.raises(SceneError, match="the folder is writable"):
            edit()
    assert world.edits == () and world.memory.pinned == set() and len(world.memory.views) == 3
    world.close()


def test_what_was_chosen_for_a_step_can_be_explained_later(world: World) -> None:
    """The stored choice is the one that the memory gives again, as it was then."""
    stored = world.steps[2].info["retrieved"]
    assert set(stored) == {"view_ids", "coverage", "gains", "votes", "reasons", "asked"}
    again = world.recall_step(2)
    assert again.choice == world.recall_step(2).choice
    assert list(again.choice.view_ids) == stored["view_ids"]
    assert set(again.choice.reasons) == {0, 1}  # what was there before step 2
    assert again.choice.asked == stored["asked"] == 2
    fresh = recall_afresh(world, 2)
    assert fresh == again.choice
    world.forget(1)
    world.erase(HOUSE)
    later = reopened(world).recall_step(2)
    assert later.choice == again.choice and torch.equal(later.evidence, again.evidence)
    assert torch.equal(later.look.rgb, again.look.rgb)


def recall_afresh(world: World, step: int) -> Choice:
    then = replay(world._store, world.journal.path(step - 1), world.journal.seals)
    hit = then.memory.retrieve([world.steps[step].camera], k=4)
    return choice_of(hit)


def test_what_feeds_the_outpainter_is_what_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, given = outpaint.complete, []

    def watched(rgb, known, camera, depth, references, *rest):
        given.append([tuple(view.camera.center.tolist()) for view in references])
        return complete(rgb, known, camera, depth, references, *rest)

    monkeypatch.setattr("scenegen.outpaint.complete", watched)
    world.pin(1)
    list(world.grow([world.camera0.moved(yaw_degrees=-12)]))
    stored = world.steps[3].info["retrieved"]["view_ids"]
    assert stored[0] == 1
    assert given == [[tuple(world.memory.views[i].camera.center.tolist()) for i in stored]]


def test_no_choice_was_made_for_the_photograph(world: World) -> None:
    for step in (0, 3):
        with pytest.raises(SceneError, match=rf"for step {step}\n.*were grown: 1, 2"):
            world.recall_step(step)
