"""The folders of the steps: each is written once, whole or not at all, and never changed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from renderers import SceneError, Splats
from scenegen.export.atomic import sync_file, sync_folder
from scenegen.world.arrays import SPLATS, VIEW, StepData, StepView, read_splats, read_view, sha256
from scenegen.world.journal import Step

logger = logging.getLogger("scenegen")

STEPS = "steps"


class StepFiles:
    """Reads and writes the folder ``steps`` of one world."""

    def __init__(self, world: Path) -> None:
        self.world = world

    def folder(self, number: int) -> Path:
        """Where a step lies."""
        return self.world / STEPS / f"{number:04d}"

    def write(self, number: int, contents: dict[str, bytes]) -> None:
        """Write the files of a step beside, wait until they are on the disk, put them in place.

        Raises:
            OSError: The machine refuses. Nothing is left behind.
        """
        final = self.folder(number)
        beside = final.with_name(f".{final.name}.part")
        try:
            beside.mkdir()
            for name, content in contents.items():
                (beside / name).write_bytes(content)
                sync_file(beside / name)
            sync_folder(beside)
            beside.rename(final)
            sync_folder(final.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise

    def add(self, number: int, contents: dict[str, bytes]) -> None:
        """Put further files into the folder of an entry, each whole or not at all.

        Raises:
            OSError: The machine refuses.
        """
        folder = self.folder(number)
        folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            beside = folder / f".{name}.part"
            beside.write_bytes(content)
            sync_file(beside)
            beside.replace(folder / name)
        sync_folder(folder)

    def remove(self, number: int) -> None:
        """Take a step away that is not in the journal."""
        shutil.rmtree(self.folder(number), ignore_errors=True)

    def unfinished(self, next_id: int) -> list[Path]:
        """What a killed process left half done: folders of steps that never got a number."""
        there = {path.name: path for path in (self.world / STEPS).glob("*")}
        made = {self.folder(number).name for number in range(next_id)}
        return [there[name] for name in sorted(there.keys() - made)]

    def unknown(self, committed: Collection[int]) -> list[Path]:
        """Folders that are not those of the steps given."""
        names = {self.folder(number).name for number in committed}
        return sorted(p for p in (self.world / STEPS).glob("*") if p.name not in names)

    def splats(self, step: Step) -> Splats:
        """What one step added.

        Raises:
            SceneError: The file is missing or damaged.
        """
        with self._damage(step):
            return read_splats(self._read(step, SPLATS))

    def view(self, step: Step) -> StepView:
        """What one step saw.

        Raises:
            SceneError: The file is missing or damaged.
        """
        with self._damage(step):
            view = read_view(self._read(step, VIEW))
            if view.depth.shape != (step.camera.height, step.camera.width):
                raise ValueError("its view is not of the size of its camera")
            return view

    def check_views(self, steps: Iterable[Step]) -> None:
        """Make sure that the files of views are there, without reading them.

        Raises:
            SceneError: One is missing.
        """
        for step in steps:
            with self._damage(step):
                (self.folder(step.id) / VIEW).stat()

    def load(self, step: Step) -> StepData:
        """All that one step added.

        Raises:
            SceneError: A file is missing or damaged.
        """
        view = self.view(step)
        return StepData(self.splats(step), view.rgb, view.depth, view.known)

    def contents(self, step: Step) -> dict[str, bytes]:
        """The files of a step as they are on the disk.

        Raises:
            SceneError: One is missing or damaged.
        """
        with self._damage(step):
            return {name: self._read(step, name) for name in (SPLATS, VIEW)}

    def size(self, number: int) -> int:
        """Size of a step's files, in bytes; 0 for an edit."""
        return sum(file.stat().st_size for file in self.folder(number).glob("*"))

    def _read(self, step: Step, name: str) -> bytes:
        data = (self.folder(step.id) / name).read_bytes()
        if step.files and sha256(data) != step.files.get(name):
            raise ValueError(f"{name} was changed after it was written")
        return data

    @contextmanager
    def _damage(self, step: Step) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise SceneError(
                f"step {step.id} of the world {self.world} is damaged",
                why=f"{error}".splitlines()[0],
                fix=f"`scenegen repair {self.world}` says what is whole; or restore the folder "
                "steps/ from a copy",
            ) from error
