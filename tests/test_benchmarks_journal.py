"""A few kills and a few damaged worlds; `python -m benchmarks.journal` has hundreds."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import scenegen
from benchmarks import journal, journal_commands
from renderers import SceneError
from scenegen.world import World

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_kills_lose_nothing() -> None:
    """In a process of its own: a child of this one would inherit the threads of other tests."""
    words = [sys.executable, "-m", "benchmarks.journal", "kill", "--count", "5"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert "5 worlds killed" in done.stdout and "0 lost something" in done.stdout, done.stderr
    assert done.returncode == 0


def test_damage_is_survived_or_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert journal.damage(count=15, seed=1000) == 0
    assert "15 worlds damaged" in capsys.readouterr().out


def test_a_loss_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark can fail: here the store forgets files, and errors are no errors of ours."""
    world = journal.begin(tmp_path / "w")
    journal.add(world, 1)
    world.close()
    what = {journal.hurt(tmp_path / "w", random.Random(seed)).split()[0] for seed in range(12)}
    assert {"flip", "cut"} <= what
    real = scenegen.open

    def broken(folder: Path, **rest: int) -> World:
        if folder.name != "whole":
            raise ZeroDivisionError
        return real(folder, **rest)

    monkeypatch.setattr("benchmarks.journal.scenegen.open", broken)
    assert journal.damage(count=2) == 2


def test_what_a_killed_command_lost_is_found(tmp_path: Path) -> None:
    world = journal.begin(tmp_path / "w")
    journal.add(world, 1)
    seals = dict(world.journal.seals)
    journal_commands.check(world, seals, [1])
    with pytest.raises(AssertionError, match="entry was lost"):
        journal_commands.check(world, {**seals, 2: "another"}, [])
    with pytest.raises(AssertionError, match="was lost"):
        journal_commands.check(world, seals, [2])


def test_full_disks_are_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when `write` says that no space is left, at any of the writes of a step."""
    import errno
    import os

    world = journal.begin(tmp_path / "w")
    for fails_at in range(4):
        left = [fails_at]

        def sync(file: int, left: list[int] = left) -> None:
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1

        with monkeypatch.context() as patched:
            patched.setattr("scenegen.export.atomic.os.fsync", sync)
            try:
                journal.add(world, 5 + fails_at)
                kept = 1
            except SceneError as error:
                kept = 0
                assert "No space left" in error.why
        assert len(journal.scenegen.open(tmp_path / "w").steps) == len(world.steps)
        assert kept or not list((tmp_path / "w" / "steps").glob(".*"))
    journal.add(world, 9)
    assert len(journal.scenegen.open(tmp_path / "w").steps) == len(world.steps) >= 2
