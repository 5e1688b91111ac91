"""Which file formats exist, what each is made from, what it cannot hold, and who reads it back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from renderers.errors import SceneError
from renderers.splats import Splats
from scenegen.export.choosing import chosen_mesh, chosen_splats, in_crop
from scenegen.export.collider import collider
from scenegen.export.options import ExportOptions
from scenegen.export.placement import AS_IT_IS, Y_UP, Axes
from scenegen.export.rows import bad_splats

if TYPE_CHECKING:
    import trimesh


@runtime_checkable  # the test-time type checker needs it
class Writer(Protocol):
    """Writes a file, whole or not at all; raises SceneError when it cannot."""

    def __call__(self, path: str | Path, source: Any, /) -> None:
        """Write ``source``, which is what the format's ``source`` says, to ``path``."""
        ...


@runtime_checkable
class Reader(Protocol):
    """Reads splats from a file in which it has no trust; raises SceneError when it cannot."""

    def __call__(self, path: str | Path, /) -> Splats:
        """The splats of ``path``, in our axes."""
        ...


@dataclass(frozen=True)
class Format:
    """A kind of file that a world can be exported to."""

    target: str
    """``module:attribute`` of its :class:`Writer`, imported only when it is used."""
    source: Literal["splats", "mesh", "collider"]
    """What it is written from."""
    about: str
    """Who reads it."""
    loses: str
    """What it cannot hold."""
    axes: Axes
    """What the writer does to our axes."""
    reader: str | None = None
    """``module:attribute`` of its :class:`Reader`; None for what is only written."""
    provenance: bool = False
    """Whether it can say where each splat comes from."""


FORMATS: dict[str, Format] = {  # by suffix, without the dot
    "ply": Format(
        "scenegen.export.ply:write_ply",
        "splats",
        "3D Gaussian splats for splat viewers and editors",
        "cameras, memory and steps; opacities of exactly 0 and 1",
        AS_IT_IS,
        "scenegen.export.ply:read_ply",
        provenance=True,
    ),
    "spz": Format(
        "scenegen.export.spz:write_spz",
        "splats",
        "splats in an eighth of the size, for phones and engines",
        "the same, and scales to better than 3 %, colours and opacities beyond 8 bits",
        Y_UP,
        "scenegen.export.spz:read_spz",
    ),
    "compressed.ply": Format(
        "scenegen.export.compressed_ply:write_compressed_ply",
        "splats",
        "splats in a quarter of the size, for SuperSplat",
        "the same, and their order, positions finer than a 1000th of a chunk",
        AS_IT_IS,
        "scenegen.export.ply:read_ply",
    ),
    "splat": Format(
        "scenegen.export.splat:write_splat",
        "splats",
        "splats for older browser viewers",
        "the same, and spherical harmonics, rotations to better than half a degree",
        AS_IT_IS,
        "scenegen.export.splat:read_splat",
    ),
    "splats.glb": Format(
        "scenegen.export.gltf_splats:write_splats_glb",
        "splats",
        "splats in glTF (KHR_gaussian_splatting)",
        "cameras, memory and steps",
        Y_UP,
        "scenegen.export.gltf_splats:read_splats_glb",
    ),
    "html": Format(
        "scenegen.export.html:write_html",
        "splats",
        "one page that shows itself in a browser, offline",
        "as .splat",
        AS_IT_IS,
    ),
    "glb": Format(
        "scenegen.export.mesh:write_glb",
        "mesh",
        "vertex-coloured mesh for browsers, Blender and game engines",
        "splats and transparency, the sky, detail finer than the voxels, what is beyond "
        "ten median depths",
        Y_UP,
    ),
    "obj": Format(
        "scenegen.export.mesh:write_obj",
        "mesh",
        "the same mesh for modellers",
        "as .glb",
        Y_UP,
    ),
    "mesh.ply": Format(
        "scenegen.export.mesh:write_mesh_ply",
        "mesh",
        "the same mesh for MeshLab and Open3D",
        "as .glb",
        Y_UP,
    ),
    "collider.glb": Format(
        "scenegen.export.mesh:write_glb",
        "collider",
        "a coarse mesh on closed ground, for physics of game engines",
        "as .glb, and details: it has at most 200,000 triangles",
        Y_UP,
    ),
}


TRIANGLES = {"mesh": 1_000_000, "collider": 160_000}
"""Most triangles of the surfaces of each kind of mesh; the ground of a collider comes on top."""


def export_file(
    path: str | Path,
    *,
    splats: Splats,
    mesh: Callable[[int], trimesh.Trimesh] | None = None,
    format: str | None = None,
    options: ExportOptions = ExportOptions(),  # noqa: B008  (frozen)
    ground: float = 0.0,
    provenance: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a world for other programs.

    Args:
        path: The file. It appears whole or not at all.
        splats: What the world consists of.
        mesh: Makes the mesh of the world with at most so many triangles; called only for formats
            that need it.
        format: A name of FORMATS; from the suffix of ``path`` when left out.
        options: What of the world is written, and where it lies in the file.
        ground: Height of the ground, y in the world, in metres; for ``options.ground``.
        provenance: Whole numbers of each splat by name, as World.provenance gives them; for
            ``options.provenance``.

    Returns:
        The name of the format written.

    Raises:
        SceneError: The format is unknown, needs a mesh that is not given, nothing is left to write,
            or its writer failed.
    """
    name = _format_of(Path(path)) if format is None else format.lower().lstrip(".")
    if name not in FORMATS:
        raise SceneError(
            f"cannot export {path}: {f'format {name!r} is unknown' if name else 'no format given'}",
            why="there is " + "; ".join(f".{key} ({f.about})" for key, f in FORMATS.items()),
            fix="use such a suffix or --format; `splat-transform` makes .sog from a .ply",
        )
    form, writer = FORMATS[name], _load(FORMATS[name].target)
    if options.provenance:
        if not form.provenance or provenance is None:
            raise SceneError(
                f"cannot export {path} with provenance",
                why="none is given" if form.provenance else f".{name} has no place for it",
                fix="export .ply, or leave out --provenance",
            )
        kept = in_crop(splats, options)
        columns = {what: values[kept] for what, values in provenance.items()}
        writer(path, chosen_splats(splats, options, form.axes, ground), columns)
    elif form.source == "splats":
        writer(path, chosen_splats(splats, options, form.axes, ground))
    elif mesh is not None:
        whole = mesh(TRIANGLES[form.source])
        if form.source == "collider":
            whole = collider(whole, ground)
        writer(path, chosen_mesh(whole, options, form.axes, ground))
    else:
        raise SceneError(
            f"cannot export {path}",
            why=f".{name} is written from a mesh, and none is given",
            fix="pass mesh=, a function that makes it, or export .ply",
        )
    return name


def read_splats(path: str | Path) -> Splats:
    """Read the splats of another program, or our own.

    Args:
        path: A file; its suffix says which format it has.

    Returns:
        At least one splat, float32, in our axes, with unit quaternions.

    Raises:
        SceneError: No reader has this suffix, or the file is missing, damaged, or not splats.
    """
    reader = FORMATS[name].reader if (name := _format_of(Path(path))) in FORMATS else None
    if reader is None:
        readable = ", ".join(f".{key}" for key, format in FORMATS.items() if format.reader)
        raise bad_splats(
            Path(path),
            f"a name that ends in {f'.{name}' if name else 'nothing'} says no format of splats",
            f"give one that ends in {readable}; `splat-transform` converts others",
        )
    read: Reader = _load(reader)
    return read(path)


def _format_of(path: Path) -> str:
    """The longest suffix that is a format, without its dot: "compressed.ply" goes before "ply"."""
    parts = path.name.lower().split(".")[1:]
    names = (".".join(parts[first:]) for first in range(len(parts)))
    return next((name for name in names if name in FORMATS), parts[-1] if parts else "")


def _load(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)
