"""The command line as a user meets it: what it makes, and three lines and exit code 2 otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_world import write_photo

from scenegen import cli
from scenegen.export.transforms import read_transforms

FAST = [
    *("--quality", "draft", "--depth", "prior", "--outpaint", "patch", "--renderer", "cpu"),
    "--no-layers",
]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photo(tmp_path_factory.mktemp("photo") / "house.png")


@pytest.fixture(scope="module")
def world(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "house"
    assert cli.main(["create", str(photo), "--out", str(folder), "--extent", "photo", *FAST]) == 0
    return folder


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run a command that must fail as a user's error; returns its three lines."""
    assert cli.main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    what, why, fix = lines[-3:]
    assert what.startswith("error: ") and why.startswith("  why: ") and fix.startswith("  fix: ")
    assert len(why) > 12 and len(fix) > 12
    return "\n".join(lines)


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS)])
def test_every_help_text_answers_without_loading_anything_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom scenegen.cli import main\n"
        f"try: main({[*command, '--help']!r})\nexcept SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numba', 'viser', 'numpy'} & set(sys.modules), 'heavy'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: scenegen" in result.stdout


@pytest.mark.parametrize("module", ["scenegen", "scenegen.cli"])
def test_python_m_runs_the_command_line(module: str) -> None:
    command = [sys.executable, "-m", module, "export", "no-world", "a.ply"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "error: " in result.stderr and "no-world" in result.stderr


def test_create_says_what_to_do_next(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w"
    assert cli.main(["create", str(photo), "--out", str(out), "--extent", "photo", *FAST]) == 0
    text = capsys.readouterr().out
    assert "house.png: 256 x 192 pixels" in text
    assert "step 0" in text and f"scenegen view {out}" in text


def test_json_is_one_object_a_line(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grow", str(world), "--path", "right", "--distance", "0.2", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "Planned" and events[-1]["event"] == "Finished"


def test_render_a_picture_a_folder_and_a_film(world: Path, tmp_path: Path) -> None:
    picture = tmp_path / "home.png"
    assert cli.main(["render", str(world), "--out", str(picture), "--depth"]) == 0
    assert Image.open(picture).size == (256, 192)
    depth = np.load(picture.with_suffix(".npy"), allow_pickle=False)
    assert depth.dtype == np.float32 and depth.shape == (192, 256) and np.isposinf(depth).any()

    path = tmp_path / "path.json"
    frames = tmp_path / "frames"
    cameras = [
        {"file_path": "a.png", "transform_matrix": np.diag([1.0, -1, -1, 1]).tolist()},
        {"file_path": "b.png", "transform_matrix": shifted(0.2).tolist()},
    ]
    lens = {"fl_x": 100.0, "fl_y": 100.0, "cx": 48.0, "cy": 32.0, "w": 96, "h": 64}
    path.write_text(json.dumps({**lens, "frames": cameras}))
    words = ["render", world, "--out", frames, "--path", path, "--depth"]
    assert cli.main([str(word) for word in words]) == 0
    assert sorted(file.name for file in frames.iterdir()) == [
        "00000.depth.png", "00000.npy", "00000.png", "00001.depth.png", "00001.npy", "00001.png",
        "sparse", "transforms.json",
    ]  # fmt: skip
    assert float(read_transforms(frames / "transforms.json")[1].center[0]) == pytest.approx(0.2)

    film = tmp_path / "film.mp4"
    words = ["render", world, "--out", film, "--path", "forward", "--distance", "0.3"]
    assert cli.main([str(word) for word in words]) == 0
    assert film.stat().st_size > 2000


def shifted(right: float) -> np.ndarray:
    matrix = np.diag([1.0, -1, -1, 1])
    matrix[0, 3] = right
    return matrix


@pytest.mark.usefixtures("open3d")
def test_export_by_suffix_and_by_name(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("house.ply", "house.glb"):
        assert cli.main(["export", str(world), str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 10_000
    assert "MB" in capsys.readouterr().out


def test_doctor_and_models_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "yes prior" in text and "yes cpu" in text and "renderer:" in text
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backends"]["depth"]["prior"]["missing"] is None
    assert cli.main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "fastdepth" in listed
    assert "CC-BY-NC-4.0 (not for commercial use)" in listed


def test_bad_photographs(tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture at all")
    half = tmp_path / "half.png"
    half.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    dot = tmp_path / "dot.png"
    Image.new("RGB", (1, 1)).save(dot)
    huge = tmp_path / "huge.png"
    huge.write_bytes(huge_png(40_000))
    out = tmp_path / "world"
    for bad in (text, half, dot, huge, tmp_path, tmp_path / "missing.jpg"):
        fails(capsys, "create", bad, "--out", out, *FAST)
        assert not out.exists()


def huge_png(side: int) -> bytes:
    """Header of a PNG of side x side pixels, with hardly any data behind it."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def test_no_permission_to_read(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(photo.read_bytes())
    secret.chmod(0)
    if os.access(secret, os.R_OK):  # root reads everything
        monkeypatch.setattr(os, "access", lambda *_: False)
    assert "permission" in fails(capsys, "create", secret, "--out", tmp_path / "w", *FAST).lower()
    assert not (tmp_path / "w").exists()


def test_bad_choices(
    tmp_path: Path, photo: Path, world: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "w"
    assert "unknown depth backend" in fails(capsys, "create", photo, "--out", out, "--depth", "x")
    message = fails(capsys, "create", photo, "--out", out, "--eye-height", "0", *FAST)
    assert "an eye height of 0 m is not one of a photograph" in message
    assert "already holds a world" in fails(capsys, "create", photo, "--out", world)
    assert "unknown path" in fails(capsys, "grow", world, "--path", "sideways")
    assert "is not a world" in fails(capsys, "grow", tmp_path, "--path", "left")
    assert "neither a picture" in fails(capsys, "render", world, "--out", tmp_path / "a.gif")
    film = fails(capsys, "render", world, "--out", tmp_path / "a.mp4", "--normals")
    assert "a.mp4 has no place for depth and normals" in film
    assert "no model to pull" in fails(capsys, "models", "pull")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "HF_HUB_OFFLINE is set" in fails(capsys, "models", "pull", "depth-anything")
    assert "ply" in fails(capsys, "export", world, tmp_path / "a.xyz")
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path / "none"))
    message = fails(capsys, "create", photo, "--out", out, "--depth", "fastdepth")
    assert "scenegen models pull fastdepth" in message
    assert not out.exists()


def test_a_foreign_package_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "renderers").mkdir()
    (tmp_path / "renderers" / "__init__.py").write_text("")
    (tmp_path / "renderers" / "errors.py").write_text(
        "class SceneError(Exception):\n"
        "    def __init__(self, what, *, why, fix):\n"
        "        super().__init__(f'{what} / {why} / {fix}')\n"
    )
    code = "from scenegen.doctor import check_own_packages; check_own_packages()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode != 0
    assert "pip uninstall renderers" in result.stderr


def test_ctrl_c_is_not_a_crash(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import scenegen.world.world as module

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "look", interrupted)
    out = tmp_path / "stopped"
    assert cli.main(["create", str(photo), "--out", str(out), *FAST]) == 130
    assert "what was committed stays" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.main(["render", str(out), "--out", str(tmp_path / "still.png")]) == 0


def test_a_reader_that_has_read_enough_is_no_error(world: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m scenegen memory list {world} | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
