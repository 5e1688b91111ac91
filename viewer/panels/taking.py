"""The tab `Take`: a picture, a film along keyframes, and the world as a file of any format."""

from __future__ import annotations

import io
import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import viser
from PIL import Image

from renderers import Camera, SceneError
from scenegen.export.formats import FORMATS
from scenegen.export.video import write_mp4
from scenegen.world.paths import between
from scenegen.world.world import World
from viewer.jobs import Job, Work
from viewer.telling import guarded, plain
from viewer.uploads import safe_name

if TYPE_CHECKING:
    from viewer.visitor import Visitor

PICTURE_SIDE, FILM_SIDE, FPS = 1920, 1280, 30
"""Longer side of pictures and of films, in pixels; frames per second."""
MAX_KEYS = 100


class TakePanel:
    """The controls of one visitor."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._keys: list[Camera] = []
        gui = visitor.client.gui
        picture = gui.add_button("Picture of this view", icon=viser.Icon.CAMERA)
        self._told = gui.add_markdown("")
        add = gui.add_button("Add a keyframe", icon=viser.Icon.MOVIE)
        self._seconds = gui.add_slider("Seconds per leg", 0.5, 10.0, 0.5, 2.0)
        self._film = gui.add_button_group("Film", ("make", "start anew"))
        self._format = gui.add_dropdown("Format", tuple(FORMATS))
        self._about = gui.add_markdown("")
        export = gui.add_button("Export the world", icon=viser.Icon.DOWNLOAD)
        for handle, action in (
            (picture, self._picture),
            (add, self._add_key),
            (self._film, self._make_film),
            (export, self._export),
        ):
            handle.on_click(guarded(action))
        self._format.on_update(guarded(lambda event: self._describe()))
        visitor.command("Picture of this view", "P", self._picture)
        visitor.command("Add a keyframe", "K", self._add_key)
        self._describe()

    def _describe(self) -> None:
        format = FORMATS[self._format.value]
        self._about.content = f"{plain(format.about)}. It cannot hold: {plain(format.loses)}."
        count = len(self._keys)
        self._told.content = f"A film goes smoothly through its keyframes: {count} so far."

    def _name(self) -> str:
        return safe_name(f"{self._visitor.stage.name}.x")

    def _picture(self, event: Any) -> None:
        view = _sized(self._visitor.walker.camera, PICTURE_SIDE)
        data = io.BytesIO()
        Image.fromarray(self._visitor.drawn(view)).save(data, "PNG")
        self._send(f"{self._name()}.png", data.getvalue())

    def _add_key(self, event: Any) -> None:
        if len(self._keys) >= MAX_KEYS:
            raise SceneError(
                "there are enough keyframes",
                why=f"a film has {MAX_KEYS} at most",
                fix="make it, then start anew",
            )
        self._keys.append(self._visitor.walker.camera)
        self._describe()

    def _make_film(self, event: Any) -> None:
        if event.target.value != "make":
            self._keys.clear()
            self._describe()
            return
        if len(self._keys) < 2:
            raise SceneError(
                "there is no film yet",
                why=f"it has {len(self._keys)} of at least 2 keyframes",
                fix="go to a place and add a keyframe, twice or more",
            )
        lens = _sized(self._keys[0], FILM_SIDE)
        count = round(FPS * self._seconds.value * (len(self._keys) - 1))
        poses = [key.cam_from_world for key in self._keys]
        path = [lens.posed(poses[0]), *between(poses, lens, max(1, count - 1))]
        self._do("Filming", lambda: self._filmed(path))

    def _filmed(self, path: list[Camera]) -> Work:
        stage = self._visitor.stage
        splats, renderer = stage.scenery.splats, stage.renderer
        with tempfile.TemporaryDirectory(prefix="scenegen-film-") as folder:
            file = Path(folder) / "film.mp4"
            with _Film(file) as film:
                for number, camera in enumerate(path, 1):
                    film.add(renderer.render(splats, camera).rgb)
                    yield f"frame {number} of {len(path)}", number / len(path)
            self._send(f"{self._name()}.mp4", file.read_bytes())

    def _export(self, event: Any) -> None:
        name, world = self._format.value, self._visitor.stage.world
        if not isinstance(world, World):
            raise SceneError(
                "there is nothing to export", why="no world is open", fix="open or make one first"
            )
        self._do(f"Exporting .{name}", lambda: self._exported(world, name))

    def _exported(self, world: World, name: str) -> Work:
        with tempfile.TemporaryDirectory(prefix="scenegen-export-") as folder:
            yield "writing ...", None
            file = world.export(Path(folder) / f"world.{name}", name)
            yield f"sending {file.stat().st_size / 1e6:.1f} MB ...", None
            self._send(f"{self._name()}.{name}", file.read_bytes())

    def _do(self, title: str, work: Any) -> None:
        visitor = self._visitor
        visitor.host.works.do(Job(title, visitor.name), work, visitor)

    def _send(self, name: str, content: bytes) -> None:
        self._visitor.client.send_file_download(name, content, save_immediately=True)


class _Film:
    """Frames in, one by one, and a file at the end; nothing where it is left early."""

    def __init__(self, file: Path) -> None:
        self._frames: queue.Queue[torch.Tensor | None] = queue.Queue(2)
        self._stopped, self._error = False, None
        self._file = file
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> _Film:
        self._thread.start()
        return self

    def add(self, frame: torch.Tensor) -> None:
        """The next frame, (h, w, 3)."""
        while self._error is None:
            try:
                self._frames.put(frame, timeout=0.2)
                return
            except queue.Full:
                continue
        raise self._error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped = kind is not None
        while self._thread.is_alive():
            try:
                self._frames.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _taken(self) -> Iterator[torch.Tensor]:
        while (frame := self._frames.get()) is not None:
            yield frame
        if self._stopped:
            raise InterruptedError("the film was left early")

    def _write(self) -> None:
        try:
            write_mp4(self._file, self._taken(), FPS)
        except Exception as error:
            self._error = error


def _sized(view: Camera, side: int) -> Camera:
    """The same view, larger: both sides even, as films want them."""
    zoom = side / max(view.width, view.height)
    return view.resized(*(max(2, round(n * zoom / 2) * 2) for n in (view.width, view.height)))
