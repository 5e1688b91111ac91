"""Exports that are stopped, killed, or watched: no half files, no litter, and bars."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from splat_scenes import cloud
from test_export_mesh import three_views

from renderers import Camera
from scenegen.export import atomic_write, export_file, mesh_from_depth, progress, read_splats
from scenegen.export.atomic import remove_leftovers
from scenegen.export.panorama import panorama

WRITING = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path.insert(0, sys.argv[1])
from splat_scenes import cloud
from scenegen.export import atomic, export_file
write = atomic.sync_file
def wait(path):
    print(path.stat().st_size, flush=True)  # most of it is on the disk
    threading.Event().wait(60)
    write(path)
atomic.sync_file = wait
export_file(sys.argv[2], splats=cloud(20_000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither signal")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_export_that_is_stopped_leaves_the_older_file(tmp_path: Path, how: int) -> None:
    """And what a killed one leaves is known for what it is and gone with the next export."""
    path = tmp_path / "a.ply"
    export_file(path, splats=cloud(10))
    older = path.read_bytes()
    command = [sys.executable, "-c", WRITING, str(Path(__file__).parent), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 500_000
        process.send_signal(how)
    assert process.returncode != 0
    assert path.read_bytes() == older
    left = [other.name for other in tmp_path.iterdir() if other != path]
    assert len(left) == (how == signal.SIGKILL)
    assert all(name.startswith(".scenegen-") and name.endswith(".part.ply") for name in left)
    remove_leftovers.cache_clear()
    export_file(tmp_path / "b.splat", splats=cloud(10))
    assert sorted(other.name for other in tmp_path.iterdir()) == ["a.ply", "b.splat"]
    assert len(read_splats(path)) == 10


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_what_others_are_writing_stays(tmp_path: Path) -> None:
    (tmp_path / ".scenegen-of-a-folder.part").mkdir()
    os.mkfifo(tmp_path / ".scenegen-pipe.part")
    with atomic_write(tmp_path / "a.txt") as first:
        first.write_text("half")
        remove_leftovers.cache_clear()
        with atomic_write(tmp_path / "b.txt") as second:
            second.write_text("whole")
        assert first.read_text() == "half"
        first.write_text("whole")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"a.txt", "b.txt"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_slow_work_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open3d: None
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "DELAY", 0.0)
    panorama(lambda view: torch.zeros(view.height, view.width, 3), Camera.from_fov(60, 8, 8), 8)
    mesh_from_depth(three_views(), voxel=0.1)
    export_file(tmp_path / "a.spz", splats=cloud(10))
    export_file(tmp_path / "a.html", splats=cloud(10))
    for title, steps in {
        "looking around": 6, "finding surfaces": 3, "fusing": 3, "cleaning": 3, "a.spz": 65536,
        "packing": 1, "a.html": 65536,
    }.items():  # fmt: skip
        lines = [line for line in screen.getvalue().split("\r") if line.startswith(f"{title}:")]
        assert f"| 0/{steps} " in lines[0]


def test_off_a_terminal_it_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    assert list(progress.progress(range(3), "work")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
