"""Long work in the viewer: one piece at a time, stopped between parts; files that visitors send."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from PIL import Image
from viser import _messages

from renderers import SceneError
from viewer import ViewerApp, uploads
from viewer.jobs import Job, Jobs
from viewer.panels.starting import StartPanel, recent_worlds
from viewer.uploads import MAX_BYTES, keep_photo, new_world_folder, safe_name

GROWING = Job("Growing here", "visitor 2")


def told_jobs() -> tuple[Jobs, list[Any]]:
    told: list[Any] = []
    return Jobs(lambda job, text, share: told.append((job, text, share))), told


def test_work_is_told_part_by_part() -> None:
    jobs, told = told_jobs()
    assert jobs.run(GROWING, lambda: iter_parts(("a", 0.5), ("b", 1.0)))
    assert [entry[1:] for entry in told] == [("", 0.0), ("a", 0.5), ("b", 1.0), ("", None)]
    assert told[0][0] is GROWING
    assert told[-1][0] is jobs.job is None
    assert str(GROWING) == "Growing here (visitor 2)"


def iter_parts(*parts: Any) -> Iterator[Any]:
    yield from parts


def test_second_piece_of_work_has_to_wait() -> None:
    jobs, _ = told_jobs()
    go, failed = threading.Event(), MagicMock()

    def slow() -> Iterator[Any]:
        go.wait(20)
        yield "done", 1.0

    jobs.start(GROWING, slow, failed)
    for begin in (
        lambda: jobs.run(Job("Export", ""), slow),
        lambda: jobs.start(GROWING, slow, failed),
    ):
        with pytest.raises(SceneError, match="has to wait") as refused:
            begin()
        assert "Growing here (visitor 2)" in refused.value.why
    go.set()
    assert jobs.wait(20)
    assert not failed.called
    assert jobs.run(GROWING, lambda: iter_parts())


def test_cancelled_work_ends_after_its_part_and_cleans_up() -> None:
    jobs, told = told_jobs()
    log: list[str] = []

    def work() -> Iterator[Any]:
        try:
            for number in range(5):
                log.append(f"part {number}")
                if number == 1:
                    jobs.cancel()
                yield f"part {number}", number / 5
        finally:
            log.append("cleaned")

    assert not jobs.run(GROWING, work)
    assert log == ["part 0", "part 1", "cleaned"]
    assert "stopping" in told[2][1]
    jobs.cancel()  # nothing to cancel
    assert jobs.run(GROWING, lambda: iter_parts(("again", 1.0)))


def test_failed_work_is_told_and_leaves_room(caplog: pytest.LogCaptureFixture) -> None:
    jobs, _ = told_jobs()
    for error, logged in ((SceneError("a", why="b", fix="c"), False), (ValueError("bug"), True)):
        told: list[Exception] = []

        def work(error: Exception = error) -> Iterator[Any]:
            raise error
            yield

        jobs.start(GROWING, work, told.append)
        assert jobs.wait(20)
        for _ in range(100):
            if told:
                break
            threading.Event().wait(0.02)
        assert told == [error]
        assert ("Growing here failed" in caplog.text) == logged
        assert jobs.job is None


# Files that visitors send ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Street in Rome.JPG", "street-in-rome"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win"),
        ("/abs/olute.png", "olute"),
        ("", "photo"),
        ("....jpg", "photo"),
        ("日本.jpg", "photo"),
        ("a" * 500 + ".jpg", "a" * 40),
        ("con\0trol\n.jpg", "con-trol"),
    ],
)
def test_names_from_outside_never_become_paths(given: str, kept: str, tmp_path: Path) -> None:
    assert safe_name(given) == kept
    folder = new_world_folder(tmp_path, given)
    assert folder.parent == tmp_path
    folder.mkdir()
    assert new_world_folder(tmp_path, given).name == f"{kept}-2"


def picture(mode: str = "RGB", format: str = "JPEG", **save: Any) -> bytes:
    data = io.BytesIO()
    Image.new(mode, (120, 90), 100 if mode == "L" else tuple(100 for _ in mode)).save(
        data, format, **save
    )
    return data.getvalue()


def test_good_photographs_are_kept(tmp_path: Path) -> None:
    sideways = Image.Exif()
    sideways[274] = 6
    for name, content in {
        "a.jpg": picture(), "cmyk.jpg": picture("CMYK"), "turned.jpg": picture(exif=sideways),
        "grey.png": picture("L", "PNG"), "no suffix": picture(),
    }.items():  # fmt: skip
        kept = keep_photo(name, content, tmp_path)
        assert kept.parent == tmp_path
        assert kept.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"hello, this is no picture", "text"),
        (picture()[:400], "damaged|incomplete|beginning"),
        (b"", "empty"),
        (b"%PDF-1.7 ...", "PDF"),
    ],
)
def test_what_is_no_photograph_is_refused_and_not_kept(
    content: bytes, why: str, tmp_path: Path
) -> None:
    with pytest.raises(SceneError, match=why):
        keep_photo("a.jpg", content, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_large_files_and_pictures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES", 100)
    with pytest.raises(SceneError, match="not taken"):
        keep_photo("a.jpg", picture(), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(uploads, "MAX_PIXELS", 120 * 90 - 1)
    with pytest.raises(SceneError, match="megapixels"):
        keep_photo("a.jpg", picture(), tmp_path)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ViewerApp]:
    with ViewerApp(port=0) as made:
        made.start = StartPanel(made, tmp_path, tmp_path, {})  # type: ignore[attr-defined]
        yield made


def sender(app: ViewerApp, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, str]:
    """Somebody who sends messages by hand: the client, a function, and the button's number."""
    client = MagicMock()
    client.client_id = 5
    monkeypatch.setattr(app.server, "get_clients", lambda: {5: client})
    monkeypatch.setitem(app.server._connected_clients, 5, client)
    buttons = app.server.gui._gui_input_handle_from_uuid
    uuid = next(k for k, v in buttons.items() if "Upload" in type(v).__name__)

    def send(message: Any) -> None:
        for handler in app.server._websock_server._incoming_handlers[type(message)]:
            handler(5, message)  # type: ignore[arg-type]

    return client, send, uuid


def start(uuid: str, size: int, parts: int = 1) -> _messages.FileTransferStartUpload:
    return _messages.FileTransferStartUpload(uuid, "t", "a.jpg", "image/jpeg", parts, size)


@pytest.mark.parametrize(("size", "parts"), [(MAX_BYTES + 1, 200), (-5, 1), (10, 10**9)])
def test_huge_upload_is_refused_before_it_comes(
    app: ViewerApp, monkeypatch: pytest.MonkeyPatch, size: int, parts: int
) -> None:
    client, send, uuid = sender(app, monkeypatch)
    send(start(uuid, size, parts))
    assert app.server.gui._current_file_upload_states == {}
    assert client.add_notification.call_args.args[0] == "The file was not taken"
    send(_messages.FileTransferPart(uuid, "t", 0, b"x" * 100))
    assert app.server.gui._current_file_upload_states == {}


def test_upload_that_is_longer_than_it_said_is_dropped(
    app: ViewerApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, send, uuid = sender(app, monkeypatch)
    send(start(uuid, 10, 3))
    send(_messages.FileTransferPart(uuid, "t", 0, b"12345"))
    assert app.server.gui._current_file_upload_states["t"]["transferred_bytes"] == 5
    send(_messages.FileTransferPart(uuid, "t", 1, b"123456"))
    assert app.server.gui._current_file_upload_states == {}
    assert "longer than it said" in caplog.text


def test_photograph_sent_meanwhile_has_to_wait(app: ViewerApp) -> None:
    go = threading.Event()

    def slow() -> Iterator[Any]:
        go.wait(20)
        yield "", None

    app.works.do(GROWING, slow)
    client = MagicMock()
    event = SimpleNamespace(client=None, target=SimpleNamespace(value=None))
    with pytest.raises(SceneError, match="has to wait"):
        app.start._received(event)  # type: ignore[attr-defined]
    go.set()
    assert app.jobs.wait(20)
    assert not client.called


def test_recent_worlds_newest_first(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(("new", "old", "older")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "world.db").touch()
        os.utime(tmp_path / name / "world.db", (1000 - age, 1000 - age))
    (tmp_path / "no world").mkdir()
    assert [folder.name for folder in recent_worlds(tmp_path)] == ["new", "old", "older"]
    assert recent_worlds(tmp_path / "nowhere") == []
