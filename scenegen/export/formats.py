"""Which file formats exist, what each is made from, and what it cannot hold."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from renderers.errors import SceneError
from renderers.splats import Splats

if TYPE_CHECKING:
    import trimesh


@runtime_checkable  # the test-time type checker needs it
class Writer(Protocol):
    """Writes a file, whole or not at all; raises SceneError when it cannot."""

    def __call__(self, path: str | Path, source: Any, /) -> None:
        """Write ``source``, which is what the format's ``source`` says, to ``path``."""
        ...


@dataclass(frozen=True)
class Format:
    """A kind of file that a world can be exported to."""

    target: str
    """``module:attribute`` of its :class:`Writer`, imported only when it is used."""
    source: Literal["splats", "mesh"]
    """What it is written from."""
    about: str
    """Who reads it."""
    loses: str
    """What it cannot hold."""


FORMATS: dict[str, Format] = {  # by suffix, without the dot
    "ply": Format(
        "scenegen.export.ply:write_ply",
        "splats",
        "3D Gaussian splats for splat viewers and editors",
        "cameras, memory and steps; opacities of exactly 0 and 1",
    ),
    "glb": Format(
        "scenegen.export.mesh:write_glb",
        "mesh",
        "vertex-coloured mesh for browsers, Blender and game engines",
        "splats and transparency, the sky, detail finer than the voxels, what is beyond "
        "ten median depths",
    ),
}


def export_file(
    path: str | Path,
    *,
    splats: Splats,
    mesh: Callable[[], trimesh.Trimesh] | None = None,
    format: str | None = None,
) -> str:
    """Write a world for other programs.

    Args:
        path: The file. It appears whole or not at all.
        splats: What the world consists of.
        mesh: Makes the mesh of the world; called only for formats that need it.
        format: A name of FORMATS; from the suffix of ``path`` when left out.

    Returns:
        The name of the format written.

    Raises:
        SceneError: The format is unknown, needs a mesh that is not given, or its writer failed.
    """
    name = _format_of(Path(path)) if format is None else format.lower().lstrip(".")
    if name not in FORMATS:
        raise SceneError(
            f"cannot export {path}: {f'format {name!r} is unknown' if name else 'no format given'}",
            why="there is " + "; ".join(f".{key} ({f.about})" for key, f in FORMATS.items()),
            fix="use such a suffix or --format; from .ply, the program `splat-transform` makes "
            ".spz, .sog, .splat and compressed.ply",
        )
    if FORMATS[name].source == "splats":
        _writer(name)(path, splats)
    elif mesh is not None:
        _writer(name)(path, mesh())
    else:
        raise SceneError(
            f"cannot export {path}",
            why=f".{name} is written from a mesh, and none is given",
            fix="pass mesh=, a function that makes it, or export .ply",
        )
    return name


def _format_of(path: Path) -> str:
    """The suffix without its dot, and both parts of "compressed.ply", which is no plain PLY."""
    name = path.name.lower()
    return "compressed.ply" if name.endswith(".compressed.ply") else path.suffix.lower()[1:]


def _writer(name: str) -> Writer:
    module, attribute = FORMATS[name].target.split(":")
    return getattr(importlib.import_module(module), attribute)
