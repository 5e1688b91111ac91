"""Is anything lost? Worlds that are killed, worlds that are damaged, and how long it all takes.

Run: python -m benchmarks.journal kill [--count 200] | commands [--count 40] | damage [--count 300]
     | speed [--steps 100]

kill    a child process makes a world, adds steps, edits, merges, undoes, redoes, branches, collects
        and packs, and says what it has done; it is killed (SIGKILL) at a random moment. Then the
        world must open, hold every entry that was said to be committed and was not collected, with
        all its files whole, and its head must be where it was said, or one act further. And once
        more after its database was deleted and repaired.
commands
        the commands that people run, on a photograph: journal_commands.py.
damage  bits are flipped, files cut, removed and swapped, in steps, database and cache. Then the
        world opens, or there is an error of three lines, before and after it was repaired; nothing
        else may happen.
speed   opening a world of many steps, and a commit beyond writing its bytes.

The steps of kill and damage are small pictures of noise: how they are kept does not depend on what
they show. Speed does: those of the last are pictures of a house.
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import torch
import tyro

import scenegen
from benchmarks import memory_casting, memory_worlds
from benchmarks.journal_commands import commands
from renderers import Camera, SceneError, Splats
from scenegen.world.arrays import StepData
from scenegen.world.journal import Step
from scenegen.world.merging import pose_at
from scenegen.world.packing import pack
from scenegen.world.repair import repair_world
from scenegen.world.store import Store
from scenegen.world.world import World

SETTINGS = {"sky_radius": 60.0, "seed": 0, "depth": "prior", "outpaint": "patch"}
CAMERA = Camera.from_fov(60.0, 64, 48)
LONGEST = 6.0
"""Seconds after which a child is killed at the latest."""
SLOW = 60.0
"""Seconds after which opening counts as hanging."""


ACTS = ("add", "add", "add", "pin", "merge", "undo", "redo", "branch", "gc", "pack")


def noise(seed: int, splats: int = 500, camera: Camera = CAMERA) -> StepData:
    """A step of random splats in front of a random picture of a bumpy wall."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(splats, 3, generator=g) + torch.tensor([0.0, 0.0, 5.0])
    shape = (camera.height, camera.width)
    rgb = torch.randint(0, 256, (*shape, 3), generator=g) / 255
    bumps = torch.rand(1, 1, 3, 4, generator=g)
    depth = 4.0 + torch.nn.functional.interpolate(bumps, shape, mode="bilinear")[0, 0]
    return StepData(
        Splats(
            means,
            torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(splats, 1),
            torch.full((splats, 3), 0.01),
            torch.full((splats,), 0.9),
            torch.rand(splats, 3, generator=g),
        ),
        rgb,
        depth,
        torch.ones(shape, dtype=torch.bool),
    )


def begin(folder: Path) -> World:
    """A world of one step."""
    world = World(Store.create(folder, SETTINGS), "cpu")
    world.commit(CAMERA, noise(0), "observed", {})
    return world


def add(world: World, seed: int) -> Step:
    """One more step."""
    camera = CAMERA.moved(yaw_degrees=7.0 * seed, right=0.1 * seed)
    return world.commit(camera, noise(seed), "generated", {})


def work(folder: Path, seed: int, said: int) -> None:
    """Make a world and change it without end. Each act is said once it is done."""
    rng = random.Random(seed)

    def say(line: str) -> None:
        os.write(said, f"{line}\n".encode())

    world = begin(folder)
    say(f"done 0 {world.journal.seals[0]}")
    other = begin(folder.with_suffix(".other"))
    add(other, 1)
    for number in range(1, 10_000):
        act = rng.choice(ACTS)
        before = world.head
        with suppress(SceneError):  # nothing to undo, or to redo
            if act == "add":
                add(world, number)
            elif act == "pin":
                view = rng.choice(list(world.memory.views))
                world.pin(view, view not in world.memory.pinned)
            elif act == "merge":
                world.merge(other, pose_at((0.1 * number, 0.0, 1.0), 9.0 * number))
            elif act == "undo":
                world.undo(rng.randint(1, 3))
            elif act == "redo":
                world.redo()
            elif act == "branch":
                world.branch(f"b{number}")
            elif act == "gc":
                say("collecting " + " ".join(map(str, world.gc(dry_run=True).entries)))
                world.gc()
            else:
                pack(folder, folder.with_suffix(".world"))
        kind = "done" if world.head != before else "kept"
        say(f"{kind} {world.head} {world.journal.seals[world.head]}")


def killed(folder: Path, seed: int) -> str:
    """Kill one child; what it was at is returned, for the statistics.

    Raises:
        AssertionError: Something was lost.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with suppress(BaseException):
            work(folder, seed, writing)
        os._exit(1)  # it never ends by itself
    os.close(writing)
    time.sleep(random.Random(seed).uniform(0.0, 1.0) ** 2 * LONGEST)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child failed by itself"
    with os.fdopen(reading) as stream:
        lines = [line.split() for line in stream.read().splitlines()]
    sealed, collected, head = {}, set[int](), 0
    for word, *rest in lines:
        if word == "collecting":
            collected |= set(map(int, rest))
        else:
            head = int(rest[0])
            sealed[head] = rest[1]
    if not sealed:
        try:
            world = scenegen.open(folder)
        except SceneError:
            world = begin(folder)  # nothing had begun, so it can begin
        world.close()
        return "begin"
    world = scenegen.open(folder)
    for number, seal in sealed.items():
        if number not in collected:
            assert world.journal.seals.get(number) == seal, f"entry {number} was lost"
    assert not world.journal.broken, "an entry is broken"
    for entry in world.journal.entries.values():
        if isinstance(entry, Step):
            world._store.files.load(entry)
    said = world.journal.path(head) if head in world.journal.entries else []
    moved = len({e.id for e in said} ^ {e.id for e in world.journal.path(world.head)})
    assert moved <= 6, "the head is elsewhere"
    seals = dict(world.journal.seals)
    add(world, 1)
    world.close()
    for database in folder.glob("world.db*"):
        database.unlink()
    lost = {int(name.replace("/", " ").split()[-1]) for name in repair_world(folder).lost}
    assert lost <= collected, f"entries {lost - collected} cannot be made again"  # half removed
    with closing(scenegen.open(folder)) as world:
        assert seals.items() <= world.journal.seals.items(), "an entry was lost with the database"
    packed = folder.with_suffix(".world")
    if packed.exists():
        scenegen.world.unpack(packed, folder.with_suffix(".again"))
    return "packing" if list(folder.parent.glob(".*.part.world")) else lines[-1][0]


def kill(count: int = 200, seed: int = 0) -> int:
    """Kill worlds.

    Args:
        count: How many.
        seed: Of the moments.

    Returns:
        How many lost something.
    """
    at, lost = Counter[str](), 0
    begin(Path(tempfile.mkdtemp()) / "warm").close()  # kernels are compiled
    for number in range(seed, seed + count):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                at[killed(Path(scratch) / "world", number)] += 1
            except (AssertionError, SceneError) as error:
                lost += 1
                print(f"kill {number}: {error}", flush=True)
    print(f"{count} worlds killed (last said: {dict(at)}); {lost} lost something", flush=True)
    return lost


def hurt(folder: Path, rng: random.Random) -> str:
    """Damage one file of a world; what was done is returned."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files += [file for file in files if file.name == "world.db"] * 6
    file, way = rng.choice(files), rng.choice(("flip", "flip", "cut", "remove", "swap", "zero"))
    data = bytearray(file.read_bytes())
    if way == "flip" and data:
        for _ in range(rng.choice((1, 1, 8, 64))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == "cut":
        data = data[: rng.randrange(len(data) + 1)]
    elif way == "zero" and data:
        start = rng.randrange(len(data))
        data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    elif way == "swap":
        other = rng.choice(files)
        data, there = bytearray(other.read_bytes()), bytes(data)
        other.write_bytes(there)
    file.write_bytes(data)
    if way == "remove":
        file.unlink()
    return f"{way} {file.relative_to(folder)}"


def damage(count: int = 300, seed: int = 0) -> int:
    """Damage worlds, and open them.

    Args:
        count: How many.
        seed: Of the damage.

    Returns:
        How many crashed, hung, or opened with other splats than they had.
    """
    found, wrong = Counter[str](), 0
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        world = begin(whole)
        for number in range(1, 10):
            add(world, number)
        world.pin(1)
        add(world, 9)
        world.undo()
        want = world.splats.means
        world.close()
        scenegen.open(whole).close()  # sets the memory aside
        assert list((whole / "cache").iterdir())
        for number in range(seed, seed + count):
            folder = Path(shutil.copytree(whole, Path(scratch) / f"{number}"))
            what = hurt(folder, random.Random(number))
            started, bad = time.monotonic(), False
            try:
                world = scenegen.open(folder)
                for view in world.memory.views:
                    _ = world.memory.views[view]
                same = torch.equal(world.splats.means, want)
                found["opens" if same else "opens elsewhere"] += 1
                if not same and not what.endswith(("world.db", "world.db-wal", "world.db-shm")):
                    bad = True
                    print(f"damage {number} ({what}): other splats", flush=True)
                world.close()
            except SceneError as error:
                found["names the way back" if "goes back" in error.fix else "says why"] += 1
                if "goes back" in error.fix:
                    to = error.fix.split("`")[1].split()[-1]
                    scenegen.open(folder, at=to).close()
            except Exception as error:
                bad = True
                print(f"damage {number} ({what}): {type(error).__name__}: {error}", flush=True)
            try:
                repaired = repair_world(folder)
                found["repaired" if repaired.rebuilt else "needs no repair"] += 1
                if repaired.whole is not None:
                    scenegen.open(folder, at=repaired.whole).close()
            except SceneError:
                found["cannot be repaired"] += 1
            except Exception as error:
                bad = True
                print(f"damage {number} ({what}): {type(error).__name__}: {error}", flush=True)
            if time.monotonic() - started > SLOW:
                bad = True
                print(f"damage {number} ({what}): hung", flush=True)
            wrong += bad
            shutil.rmtree(folder)
    print(f"{count} worlds damaged: {dict(found)}; {wrong} went wrong", flush=True)
    return wrong


def painted(place: memory_casting.World, camera: Camera, splats: int, first: bool) -> StepData:
    """A step as growth makes it: a picture of a painted house, a third of which is new."""
    rgb, depth = map(torch.from_numpy, place.photograph(camera))
    known = torch.ones_like(depth, dtype=torch.bool)
    known[:, : 0 if first else 2 * camera.width // 3] = False
    rows = torch.nonzero(known.flatten() & torch.isfinite(depth).flatten())[:, 0]
    rows = rows[torch.linspace(0, len(rows) - 1, splats).long()]
    means = camera.unproject(camera.pixel_centers(), depth).reshape(-1, 3)[rows]
    data = noise(0, splats, camera)
    colors = rgb.reshape(-1, 3)[rows]
    return replace(
        data, splats=replace(data.splats, means=means, colors=colors),
        rgb=(rgb.clamp(0, 1) * 255).round() / 255, depth=depth, known=known,
    )  # fmt: skip


def speed(steps: int = 100, splats: int = 15_000) -> int:
    """Time a large world: a walk through six rooms, 768 x 576 pixels a view.

    Args:
        steps: How many it has.
        splats: How many each of them adds.

    Returns:
        0: there is no gate.
    """
    place = memory_worlds.rooms(steps)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "w"
        world = World(Store.create(folder, SETTINGS), "cpu")
        beyond: list[float] = []
        for number, stand in enumerate(place.walk(steps)):
            camera = Camera.from_fov(60.0, 768, 576, stand.cam_from_world)
            data = painted(place, camera, splats, number == 0)
            started = time.perf_counter()
            with world.writing():
                world.add(camera, data, "generated" if number else "observed", {})
            took = time.perf_counter() - started
            started = time.perf_counter()
            for name, content in data.files().items():
                with (Path(scratch) / name).open("wb") as file:
                    file.write(content)
                    os.fsync(file.fileno())
            beyond.append(took - (time.perf_counter() - started))
        print(f"{steps} steps, {len(world.splats):,} splats, {len(world.memory.surfels):,} surfels")
        world.close()
        for what in ("all made again", "from the snapshot", "in a process of its own"):
            words = [sys.executable, "-c", OPEN, str(folder)]
            started, used = time.perf_counter(), time.process_time()
            if what == "in a process of its own":
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                took, used = map(float, done.stdout.split())
            else:
                scenegen.open(folder).close()
                took, used = time.perf_counter() - started, time.process_time() - used
            print(f"opened, {what}: {took:.2f} s, of the processor {used:.2f} s (target 2)")
        world = scenegen.open(folder)
        for name, act in (("undo", world.undo), ("redo", world.redo)):
            took = []
            for _ in range(5):
                started = time.perf_counter()
                act()
                took.append(time.perf_counter() - started)
            print(f"{name}: {1e3 * statistics.median(took):.0f} ms")
    beyond.sort()
    print(f"commit beyond its data: median {1e3 * beyond[len(beyond) // 2]:.0f} ms, "
          f"worst {1e3 * beyond[-1]:.0f} ms (target 150)")  # fmt: skip
    return 0


OPEN = """
import sys, time, scenegen, scenegen.world.world
started, used = time.perf_counter(), time.process_time()
world = scenegen.open(sys.argv[1])
print(time.perf_counter() - started, time.process_time() - used)
"""
"""A program that opens a world and says how long that took, imports aside."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(
        tyro.extras.subcommand_cli_from_dict(
            {"kill": kill, "commands": commands, "damage": damage, "speed": speed},
            description=__doc__,
        )
        and 1
    )
