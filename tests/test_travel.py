"""Worlds that are made again, compared, packed and unpacked."""

from __future__ import annotations

import io
import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import fails
from test_memory_cli import says
from test_world import SETTINGS, write_photo
from test_world_edits import database, same

import scenegen
from renderers import SceneError
from scenegen import cli
from scenegen.splatting.losses import psnr
from scenegen.world import check_world, pack, remake, unpack
from scenegen.world.packing import MANIFEST
from scenegen.world.world import World


@pytest.fixture
def folder(grown_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown_world, tmp_path / "world"))


@pytest.fixture
def world(folder: Path) -> World:
    return scenegen.open(folder)


def test_a_world_with_edits_and_gaps_is_made_again_to_the_bit(world: World) -> None:
    world.undo()
    world.erase([[-24, -16, 5], [-1.5, 1.2, 60]])
    list(world.grow([world.camera0.moved(yaw_degrees=-12)]))
    made = list(check_world(world))
    assert [one.entry.id for one in made] == [0, 1, 3, 4]
    assert all(one.difference is None and not one.taken for one in made)


def test_layers_and_copies_are_made_again(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.png", 96, 64)
    settings = {**SETTINGS, "layers": True}
    world = scenegen.create(photo, tmp_path / "w", extent="photo", **settings)
    assert all(one.difference is None for one in remake(world))


def test_what_was_refined_and_merged_to_a_budget_is_made_again(tmp_path: Path) -> None:
    """At standard quality the photograph is refined; a view that turns gets what is left."""
    photo = write_photo(tmp_path / "photo.png")
    grain = 60 * torch.randn(192, 256, 1, generator=torch.Generator().manual_seed(3))
    levels = torch.from_numpy(np.array(Image.open(photo))) + grain
    Image.fromarray(levels.clamp(0, 255).byte().numpy()).save(photo)
    settings = {**SETTINGS, "layers": True, "extent": "photo"}
    plain = scenegen.create(photo, tmp_path / "plain", **settings)
    world = scenegen.create(photo, tmp_path / "w", **{**settings, "quality": "standard"})
    shown = torch.as_tensor(world.memory.views[0].rgb)
    before, after = (psnr(each.render(each.camera0).rgb, shown) for each in (plain, world))
    assert after > before + 2.0
    count = len(world.splats)
    list(world.visit([world.camera0.moved(yaw_degrees=35)], budget=count + 2500))
    assert world.steps[-1].info["limit"] == 2500
    assert count + 2000 < len(world.splats) <= count + 2500
    assert all(one.difference is None for one in remake(world))


def test_the_first_difference_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill = scenegen.world.world.invent

    def other(*args, **settings):
        grown = fill(*args, **settings)
        if settings["seed"] % 100_003 == 2:
            grown.data.splats.opacities[5] *= 0.5
        return grown

    monkeypatch.setattr("scenegen.world.world.invent", other)
    assert cli.main(["replay", str(world.folder)]) == 2
    message = capsys.readouterr().err
    assert "entry 2 comes out different" in message and "1 of " in message
    assert "values of opacities" in message
    assert "DIFFERENT" in says(capsys, "replay", world.folder, "--no-check")


def test_two_moments_are_compared(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "diff.png"
    text = says(capsys, "diff", world.folder, 0, "main", "--out", picture)
    assert "only in B: 1: step" in text and "only in B: 2: step" in text and "only in A" not in text
    lines = {line.split(":")[0]: line for line in text.splitlines()}
    assert "B: entry 2" in lines["B"] and "3 views" in lines["B"]
    assert float(lines["view of step 2"].split(": ")[1].split("%")[0]) > 5
    camera = world.camera0
    assert Image.open(picture).size == (3 * camera.width + 8, 3 * camera.height + 8)
    found = json.loads(says(capsys, "diff", world.folder, 1, 1, "--json"))
    assert found["only"] == [[], []] and found["renders"] == [{"view": "first view", "differs": 0}]
    assert "no branch or entry" in fails(capsys, "diff", world.folder, 0, "nowhere")


def test_a_world_travels(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.pin(1)
    world.undo(2)
    world.branch("other")
    world.close()
    assert "MB" in says(capsys, "pack", world.folder, tmp_path / "w.world")
    assert "scenegen view" in says(capsys, "unpack", tmp_path / "w.world", tmp_path / "there")
    one, two = scenegen.open(world.folder), scenegen.open(tmp_path / "there")
    assert same(one, two) and two.journal.seals == one.journal.seals
    assert two.redo(2)[-1].id == 3 and two.memory.pinned == {1}
    assert "already holds a world" in fails(capsys, "unpack", tmp_path / "w.world", two.folder)
    assert "there is no such file" in fails(capsys, "unpack", tmp_path / "no", tmp_path / "x")


def test_what_is_damaged_is_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "steps/0001/view.safetensors").write_bytes(b"x")
    with pytest.raises(SceneError, match=r"step 1 .* is damaged"):
        pack(folder, tmp_path / "w.world")
    database(folder, "UPDATE entries SET body = '{' WHERE id = 2")
    with pytest.raises(SceneError, match="cannot be packed whole"):
        pack(folder, tmp_path / "w.world")
    assert not (tmp_path / "w.world").exists()


def repacked(file: Path, change: Callable[[dict[str, bytes], dict], None]) -> None:
    """Write a packed world again with other members, and a list that fits unless it is changed."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop(MANIFEST))
    change(members, manifest["files"])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr(MANIFEST, json.dumps(manifest))


def add(name: str, data: bytes = b"x") -> Callable[[dict[str, bytes], dict], None]:
    def change(members: dict[str, bytes], listed: dict) -> None:
        import hashlib

        members[name] = data
        listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return change


VIEW = "steps/0001/view.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add("../evil"), "no part of a world"),
        (add("/tmp/evil"), "no part of a world"),
        (add("steps/0001/../../evil"), "no part of a world"),
        (add("steps/0001/code.pkl"), "no part of a world"),
        (add("world.db", b"not a database"), "not a database"),
        (add(VIEW, b"other"), "not the one of the journal"),
        (lambda m, f: m.update({VIEW: m[VIEW][:-1] + b"?"}), "other contents than its list"),
        (lambda m, f: (m.pop(VIEW), f.pop(VIEW)), "not the one of the journal"),
        (lambda m, f: m.pop(VIEW), "are not those of its list"),
        (lambda m, f: m.pop("world.db"), "are not those of its list"),
        (lambda m, f: f[VIEW].update(bytes=-1), "are not those of its list"),
        (add("README.txt", b"\0" * 400_000_000), "would unpack to"),
    ],
)
def test_hostile_files_are_refused_and_leave_nothing(
    folder: Path, tmp_path: Path, change: Callable, message: str
) -> None:
    file = tmp_path / "w.world"
    pack(folder, file)
    repacked(file, change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SceneError, match=message):
        unpack(file, tmp_path / "there")
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_halves_are_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.world"
    pack(folder, file)
    whole = file.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 9):
        file.write_bytes(whole[:size])
        with pytest.raises(SceneError, match="not a world that can be unpacked"):
            unpack(file, tmp_path / "there")
    buffer = io.BytesIO(whole)
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("steps/0009/view.safetensors")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    file.write_bytes(buffer.getvalue())
    with pytest.raises(SceneError, match="is no plain file"):
        unpack(file, tmp_path / "there")
    assert not (tmp_path / "there").exists()
