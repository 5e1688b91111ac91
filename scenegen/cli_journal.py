"""Commands about a world's past, and about worlds that travel. Holds no algorithm."""

from __future__ import annotations

import json as jsons
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from renderers.errors import SceneError

WorldFolder = tyro.conf.Positional[Path]


def log(world: WorldFolder, json: bool = False) -> None:
    """Show how a world came about: all steps and edits, as a tree, newest first.

    ``@`` is where the world is, ``*`` what it consists of, ``o`` what was undone or belongs to
    other branches.

    Args:
        world: Folder of the world; it need not be whole.
        json: Print one JSON object instead of text.
    """
    from scenegen.world import log_json, log_lines, read_journal

    journal = read_journal(world)
    for line in [jsons.dumps(log_json(journal))] if json else log_lines(journal):
        _say(line)


def undo(world: WorldFolder, steps: int = 1) -> None:
    """Take the last steps or edits out of a world. Nothing is lost: redo brings them back.

    Args:
        world: Folder of the world.
        steps: How many.
    """
    import scenegen
    from scenegen.world import describe

    opened = scenegen.open(world)
    for entry in opened.undo(steps):
        _say(f"undone: {entry.id}: {describe(entry)}")
    _say(f"the world is at entry {opened.head}")


def redo(world: WorldFolder, steps: int = 1) -> None:
    """Bring back what was undone last.

    Args:
        world: Folder of the world.
        steps: How many steps or edits.
    """
    import scenegen
    from scenegen.world import describe

    opened = scenegen.open(world)
    for entry in opened.redo(steps):
        _say(f"redone: {entry.id}: {describe(entry)}")
    _say(f"the world is at entry {opened.head}")


def branch(
    world: WorldFolder, name: tyro.conf.Positional[str | None] = None, delete: bool = False
) -> None:
    """List the branches of a world, or start a new one where the world is.

    Args:
        world: Folder of the world.
        name: Name of the new branch; all are listed when left out.
        delete: Delete the branch of that name instead. Its steps stay until `scenegen gc`.
    """
    import scenegen
    from scenegen.world import read_journal

    if name is None and not delete:
        journal = read_journal(world)
        for known, entry in sorted(journal.branches.items()):
            _say(f"{'@' if known == journal.branch else ' '} {known}: entry {entry}")
        return
    if name is None:
        raise SceneError(
            "no branch to delete was named",
            why="`branch WORLD NAME --delete` takes a name",
            fix=f"`scenegen branch {world}` lists them",
        )
    opened = scenegen.open(world)
    if delete:
        opened.drop_branch(name)
        _say(f"the branch {name} is deleted; `scenegen gc {world}` frees what only it led to")
    else:
        opened.branch(name)
        _say(f"branch {name} starts at entry {opened.head}, and the world is on it")


def switch(world: WorldFolder, to: tyro.conf.Positional[str]) -> None:
    """Go to a branch of a world, or to any entry of its log.

    Args:
        world: Folder of the world.
        to: Name of a branch, or number of an entry.
    """
    import scenegen

    opened = scenegen.open(world, at=to)
    on = f"on branch {name}" if (name := opened.journal.branch) else "on no branch"
    _say(f"the world is at entry {opened.head}, {on}")


def gc(world: WorldFolder, dry_run: bool = False) -> None:
    """Remove for good what was undone and what no branch leads to.

    Args:
        world: Folder of the world.
        dry_run: Only say what would be removed.
    """
    import scenegen

    freed = scenegen.open(world).gc(dry_run)
    which = f": {', '.join(map(str, freed.entries))}" if freed.entries else ""
    verb = "would be removed" if dry_run else "removed"
    _say(f"{len(freed.entries)} entries {verb}{which}; {freed.bytes / 1e6:.1f} MB")


def diff(
    world: WorldFolder,
    a: tyro.conf.Positional[str],
    b: tyro.conf.Positional[str],
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Compare two branches or entries of a world, in numbers and in a picture.

    Args:
        world: Folder of the world; it is only read.
        a: The one: name of a branch, or number of an entry.
        b: The other.
        out: FILE.png for a picture: a row per view, with A, B and where they differ.
        json: Print one JSON object instead of text.
    """
    import scenegen
    from scenegen.export import write_png

    found = scenegen.open(world).diff(a, b)
    if out is not None:
        write_png(out, found.picture())
    for line in [jsons.dumps(found.as_json())] if json else found.lines():
        _say(line)


def replay(world: WorldFolder, check: bool = True) -> None:
    """Make a world again from its journal, step by step, and compare. Nothing is written.

    Args:
        world: Folder of the world.
        check: Stop with an error at the first step that comes out different; --no-check only says
            so.
    """
    import scenegen
    from scenegen.world import check_world, remake

    opened, done = scenegen.open(world), 0
    for one in check_world(opened) if check else remake(opened):
        _say(str(one))
        done += one.difference is None
    _say(f"{done} entries came out the same to the bit")


def merge(
    world: WorldFolder,
    other: WorldFolder,
    at: tuple[float, float, float] | None = None,
    yaw: float = 0.0,
    scale: float = 1.0,
    pose: Path | None = None,
) -> None:
    """Put a second world into a first one, without its sky. One undo takes it out again.

    Args:
        world: Folder of the first world.
        other: Folder of the second world; it is only read.
        at: X Y Z: where the first camera of the second world comes to stand, x right, y down, z
            forward, in metres from where the first photograph was taken; there when left out.
        yaw: How far the second world is turned to the right, in degrees.
        scale: How many times as large it becomes.
        pose: A transforms.json, instead of --at and --yaw: where its first camera is.
    """
    import scenegen
    from scenegen.world import pose_at, pose_from

    if pose is not None and (at is not None or yaw):
        raise SceneError(
            "where does the second world lie?",
            why="there is a --pose, and --at or --yaw as well",
            fix="give one of them",
        )
    place = pose_at(at or (0.0, 0.0, 0.0), yaw, scale) if pose is None else pose_from(pose, scale)
    steps = scenegen.open(world).merge(scenegen.open(other), place)
    count = sum(step.info["splats"] for step in steps)
    _say(f"steps {steps[0].id} to {steps[-1].id}: {len(steps)} views, {count:,} splats")


def pack(world: WorldFolder, file: tyro.conf.Positional[Path]) -> None:
    """Put a world, with all its branches, into one file that can be sent.

    Args:
        world: Folder of the world; it is only read.
        file: FILE.world to write.
    """
    from scenegen.world import pack as pack_world

    _say(f"{file}: {pack_world(world, file) / 1e6:.1f} MB")


def unpack(file: tyro.conf.Positional[Path], world: WorldFolder) -> None:
    """Make a world of a file that `scenegen pack` wrote. The file is checked, and not trusted.

    Args:
        file: The file.
        world: New or empty folder for the world.
    """
    from scenegen.world import unpack as unpack_world

    unpack_world(file, world)
    _say(f"walk through it:  scenegen view {world}")


def repair(world: WorldFolder, splats: Path | None = None) -> None:
    """Make a lost or damaged world.db again from the steps, and say what is damaged beyond that.

    Args:
        world: Folder of the world.
        splats: Only save all splats that can still be read, to FILE.ply or another format.
    """
    from scenegen.world import repair_world, salvaged

    if splats is not None:
        from scenegen.export import export_file

        saved = salvaged(world)
        export_file(splats, splats=saved)
        _say(f"{splats}: {len(saved):,} splats")
        return
    for line in repair_world(world).lines():
        _say(line)


COMMANDS: dict[str, Callable[..., Any]] = {
    "log": log,
    "undo": undo,
    "redo": redo,
    "branch": branch,
    "switch": switch,
    "gc": gc,
    "diff": diff,
    "replay": replay,
    "merge": merge,
    "pack": pack,
    "unpack": unpack,
    "repair": repair,
}


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
