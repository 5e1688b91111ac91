"""Kills commands as people run them, on a photograph: create, grow, undo, gc and pack.

Each is a process of its own, which is killed (SIGKILL) at a random moment. Nothing that was there
before, and nothing that it said was committed, may be lost, and the command must work again.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import scenegen
from renderers import SceneError
from scenegen.world.journal import Step
from scenegen.world.world import World

PHOTO = Path(__file__).parents[1] / "assets" / "photos" / "field.jpg"
SMALL = ("--extent", "photo", "--quality", "draft", "--depth", "prior", "--outpaint", "patch")
"""Options of a world that is made in seconds."""
SIDE = ("--path", "right", "--distance", "0.3")


def command(act: str, folder: Path) -> list[str]:
    """The command line of an act on the world in ``folder``."""
    words: dict[str, list[str]] = {
        "create": ["create", str(PHOTO), "--out", str(folder), "--json", *SMALL],
        "grow": ["grow", str(folder), "--json", *SIDE],
        "undo": ["undo", str(folder)],
        "gc": ["gc", str(folder)],
        "pack": ["pack", str(folder), str(folder.with_suffix(".world"))],
    }
    return [sys.executable, "-m", "scenegen", *words[act]]


def whole(act: str, folder: Path) -> float:
    """Let a command end; the seconds that it took are returned.

    Raises:
        AssertionError: It failed.
    """
    started = time.monotonic()
    done = subprocess.run(command(act, folder), capture_output=True, text=True)
    assert done.returncode == 0, f"{act} fails: {done.stderr[-400:]}"
    return time.monotonic() - started


def killed(act: str, folder: Path, seconds: float) -> tuple[bool, list[int]]:
    """Kill a command after some seconds: was it still at work, and what had it committed?"""
    child = subprocess.Popen(command(act, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    child.kill()
    out, _ = child.communicate()
    said = []
    for line in out.decode().splitlines():
        with suppress(ValueError):  # cut off, or not an event
            event = json.loads(line)
            if event["event"] == "Committed":
                said.append(event["step"])
    return child.returncode == -signal.SIGKILL, said


def begun(folder: Path) -> dict[int, str]:
    """A world with a side branch and something to collect; the seals that a collection keeps."""
    for act in ("create", "grow", "undo", "grow"):
        whole(act, folder)
    with closing(scenegen.open(folder)) as world:
        gone = set(world.gc(dry_run=True).entries)
        assert gone, "there is nothing to collect"
        return {entry: seal for entry, seal in world.journal.seals.items() if entry not in gone}


def check(world: World, kept: dict[int, str], said: list[int]) -> None:
    """Raise an AssertionError where a world lacks something that it had or said."""
    assert kept.items() <= world.journal.seals.items(), "an entry was lost"
    assert set(said) <= world.journal.entries.keys(), f"one of the steps {said} was lost"
    assert not world.journal.broken, "an entry is broken"
    for entry in world.journal.entries.values():
        if isinstance(entry, Step):
            world._store.files.load(entry)
    assert len(world.splats), "there are no splats"


def commands(count: int = 40, seed: int = 0) -> int:
    """Kill commands.

    Args:
        count: How many.
        seed: Of the moments.

    Returns:
        How many lost something.
    """
    acts = ("create", "grow", "undo", "gc", "pack")
    at, lost = Counter[str](), 0
    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "template"
        seals = begun(template)
        last = {act: whole(act, _copy(template, act, Path(scratch) / f"{act}-0")) for act in acts}
        for number in range(seed, seed + count):
            rng, act = random.Random(number), acts[number % len(acts)]
            folder = _copy(template, act, Path(scratch) / f"{number + 1}")
            try:
                early, said = killed(act, folder, rng.uniform(0.3, 1.0) * last[act])
                at[act if early else f"{act}, done"] += 1
                try:
                    with closing(scenegen.open(folder)) as world:
                        check(world, {} if act == "create" else seals, said)
                except SceneError:
                    if act != "create" or said:
                        raise
                    whole(act, folder)  # nothing had begun, so it can begin
                if act != "create":
                    whole(act, folder)
            except (AssertionError, SceneError) as error:
                lost += 1
                print(f"{act} {number}: {error}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".world").unlink(missing_ok=True)
    print(f"{count} commands killed ({dict(at)}); {lost} lost something", flush=True)
    return lost


def _copy(template: Path, act: str, folder: Path) -> Path:
    return folder if act == "create" else Path(shutil.copytree(template, folder))
