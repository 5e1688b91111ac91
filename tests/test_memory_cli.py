"""`scenegen memory` as a user meets it: tables, pictures, edits that last, and errors that help."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import fails

import scenegen
from renderers import Camera
from scenegen import cli, cli_memory
from scenegen.world.grow import Choice, Look
from scenegen.world.inventory import memory_json
from scenegen.world.recall import Recall, place_of
from scenegen.world.recall_picture import COLORS, WIDTH, draw_recall
from spatial_memory import View, ViewStore


@pytest.fixture
def folder(grown_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown_world, tmp_path / "world"))


def says(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run a command that must succeed; returns what it printed."""
    assert cli.main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_help_answers_without_loading_anything_heavy() -> None:
    code = (
        "import sys\nfrom scenegen.cli import main\n"
        f"for command in {[*cli_memory.COMMANDS]!r}:\n"
        "    try: main(['memory', command, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numba', 'PIL', 'numpy'} & set(sys.modules), 'heavy'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in cli_memory.COMMANDS:
        assert f"usage: scenegen memory {command}" in result.stdout


def test_list_is_a_table_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = says(capsys, "memory", "list", folder).splitlines()
    assert len(lines) == 5 and lines[0].split()[:3] == ["view", "step", "provenance"]
    assert lines[1].split()[:6] == ["0", "0", "observed", "256", "x", "192"]
    assert lines[2].split()[6:9] == ["0.30", "0.00", "0.00"]
    assert lines[4].startswith("3 views, ") and lines[4].endswith("MB")
    found = json.loads(says(capsys, "memory", "list", folder, "--json"))
    world = scenegen.open(folder)
    assert [view["provenance"] for view in found["views"]] == ["observed", *["generated"] * 2]
    assert all(view["surfels"] >= view["alone"] > 0 for view in found["views"])
    assert found["totals"]["surfels"] == len(world.memory.surfels)
    assert found["totals"]["megabytes"] > 3 * 256 * 192 * 17 / 1e6
    assert found["edits"] == []


def test_list_reads_no_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = scenegen.open(folder)
    before = memory_json(world)
    monkeypatch.setattr(ViewStore, "__getitem__", lambda *_: pytest.fail("pixels were read"))
    assert memory_json(world) == before


def test_edits_last_and_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "view 1 is pinned" in says(capsys, "memory", "pin", folder, 1)
    assert "  pinned" in says(capsys, "memory", "list", folder).splitlines()[2]
    assert "unpin it first" in fails(capsys, "memory", "forget", folder, 1)
    assert "not pinned" in says(capsys, "memory", "unpin", folder, 1)
    assert "2 views are left" in says(capsys, "memory", "forget", folder, 1)
    box = ["--box", "-24", "-16", "5", "-1.5", "1.2", "60"]
    text = says(capsys, "memory", "erase", folder, *box)
    assert text.startswith("erased ") and "surfels" in text
    lines = says(capsys, "memory", "list", folder).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["0", "2"]
    assert [line.split()[2] for line in lines[4:]] == ["pin", "unpin", "forget", "erase"]
    assert "[[-24.0, -16.0, 5.0], [-1.5, 1.2, 60.0]]" in lines[-1]
    found = json.loads(says(capsys, "memory", "list", folder, "--json"))
    assert found["edits"][3]["arguments"]["box"][1] == [-1.5, 1.2, 60.0]


def test_erase_counts_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = ["--box", "-24", "-16", "5", "-1.5", "1.2", "60", "--json"]
    erased = json.loads(says(capsys, "memory", "erase", folder, *box))
    assert erased["splats"] > 100 and erased["surfels"] > 100


def test_errors(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    erase = ["memory", "erase", folder, "--box"]
    assert "not a box" in fails(capsys, *erase, 1, 0, 0, 0, 1, 1)
    assert "not a box" in fails(capsys, *erase, 0, 0, 0, 1, 1, "nan")
    assert "nothing was erased" in fails(capsys, *erase, 90, 90, 90, 91, 91, 91)
    for command in ("pin", "unpin", "forget"):
        assert "no view 9" in fails(capsys, "memory", command, folder, 9)
    assert "it is a photograph" in fails(capsys, "memory", "forget", folder, 0)
    show = ["memory", "show", folder]
    assert "no view 9" in fails(capsys, *show, "--view", 9)
    assert "nothing was remembered for step 0" in fails(capsys, *show, "--step", 0)
    assert "--view or --step?" in fails(capsys, *show, "--view", 1, "--step", 1)
    assert "--camera or a move?" in fails(capsys, *show, "--camera", "a.json", "--yaw", 5)
    assert "there is no such file" in fails(capsys, *show, "--camera", tmp_path / "a.json")
    assert "ends in .png" in fails(capsys, *show, "--out", tmp_path / "a.jpg")
    assert "no folder" in fails(capsys, *show, "--out", tmp_path / "none" / "a.png")
    for command in cli_memory.COMMANDS:
        words = {"erase": ["--box", *"000111"], "list": [], "show": []}.get(command, [1])
        assert "is not a world" in fails(capsys, "memory", command, tmp_path, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world"]
    assert scenegen.open(folder).edits == ()


def test_show_draws_and_says_the_same_for_every_way_to_name_a_view(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = scenegen.open(folder).camera0
    pose = np.diag([1.0, -1, -1, 1])
    pose[0, 3] = 0.3
    lens = camera.px_from_cam
    frame = {"fl_x": float(lens[0, 0]), "cx": 64.0, "cy": 48.0, "w": 128, "h": 96}
    file = tmp_path / "path.json"
    file.write_text(json.dumps({"frames": [{**frame, "transform_matrix": pose.tolist()}]}))
    pictures = []
    for number, words in enumerate((["--right", 0.3], ["--view", 1], ["--camera", file])):
        out = tmp_path / f"{number}.png"
        drawn = ["--out", out] if number < 2 else []
        text = says(capsys, "memory", "show", folder, *drawn, *words)
        assert text.splitlines()[0].startswith("view 0.30 m right: ")
        assert "chosen: " in text and "view 0 (observed): taken: shows" in text
        pictures += [np.array(Image.open(out))] if drawn else []
    assert pictures[0].shape[1] == WIDTH
    assert (pictures[0] == pictures[1]).all()
    for color in COLORS[:2]:  # the frames of the two views chosen, and their places in the legend
        assert (pictures[0] == color).all(-1).sum() > 4000
    found = json.loads(says(capsys, "memory", "show", folder, "--right", 0.3, "--json"))
    assert found["view_ids"][0] == 0 and found["step"] is None
    assert found["explains_first"]["0"] == pytest.approx(found["gains"][0], abs=0.05)
    assert set(found["reasons"]) == {"0", "1", "2"}


def test_show_step_is_the_stored_choice(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "step.png"
    text = says(capsys, "memory", "show", folder, "--step", 2, "--out", out)
    stored = scenegen.open(folder).steps[2].info["retrieved"]
    assert text.startswith("step 2, turned 15 degrees right: ")
    for view_id in stored["view_ids"]:
        assert stored["reasons"][str(view_id)] in text
    assert Image.open(out).size[0] == WIDTH


def test_a_read_only_world_is_shown_and_not_edited(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that refuses writing: the database is opened without the files beside it."""
    monkeypatch.setattr("scenegen.world.database.os.access", lambda *_: False)
    assert "3 views" in says(capsys, "memory", "list", folder)
    assert "chosen" in says(capsys, "memory", "show", folder, "--yaw", 5)
    message = fails(capsys, "memory", "pin", folder, 1)
    assert "readonly database" in message and "the folder is writable" in message
    monkeypatch.undo()
    assert "pinned" not in says(capsys, "memory", "list", folder)


def test_a_damaged_or_newer_world(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect(folder / "world.db")
    with connection:
        connection.execute("UPDATE meta SET value = '4' WHERE key = 'format'")
    connection.close()
    for command in ("list", "show"):
        assert "reads up to 3" in fails(capsys, "memory", command, folder)


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ({}, "from where the photograph was taken"),
        ({"right": -0.25, "down": 0.1}, "0.25 m left, 0.10 m down"),
        ({"forward": 1.0, "yaw_degrees": -30.0}, "1.00 m forward, turned 30 degrees left"),
        ({"pitch_degrees": -14.0}, "turned 14 degrees down"),
        ({"right": 0.004, "yaw_degrees": 0.4}, "from where the photograph was taken"),
    ],
)
def test_places_in_words(move: dict[str, float], words: str) -> None:
    assert place_of(Camera.from_fov(60, 64, 48).moved(**move)) == words


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (400, 20)])
@pytest.mark.parametrize("count", [0, 1, 11])
def test_the_picture_holds_any_number_of_views_of_any_shape(
    size: tuple[int, int], count: int
) -> None:
    """More views than colours and columns, very long reasons, and none at all."""
    width, height = size
    camera = Camera.from_fov(60, width, height)
    rgb, depth = torch.rand(height, width, 3), torch.ones(height, width)
    known = torch.ones(height, width, dtype=torch.bool)
    view = View(rgb, depth, camera, "generated", known)
    ids = tuple(range(count))
    reasons = dict.fromkeys(range(count + 1), "why " * 80)
    choice = Choice(ids, 0.5, (0.1,) * count, (1.0,) * count, reasons, 5000)
    evidence = torch.arange(width * height).reshape(height, width) % (count + 2) - 2
    views = dict.fromkeys(range(count + 1), view)
    recall = Recall(Look(camera, rgb, depth, known, known), choice, evidence, (count,), views)
    picture = draw_recall(recall)
    assert picture.shape[1] == WIDTH
    margins = picture[:, :40], picture[:, -40:], picture[:40], picture[-40:]
    assert all((margin == margin[0, 0]).all() for margin in margins)
    assert len(recall.lines()) == 2 + count + 2
