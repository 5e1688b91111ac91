"""Export options at work: what is kept, how much of it, and where it lies in the file."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from jaxtyping import Bool
from torch import Tensor

from renderers.errors import SceneError
from renderers.splats import Splats
from scenegen.export.options import ExportOptions
from scenegen.export.placement import AS_IT_IS, Y_UP, Z_UP, Axes, Placement

UPS: dict[str, Axes] = {"-y": AS_IT_IS, "y": Y_UP, "z": Z_UP}
"""From our axes to those with this one up."""


def chosen_splats(
    splats: Splats, options: ExportOptions, axes: Axes, ground: float = 0.0
) -> Splats:
    """The splats to hand to a writer.

    Args:
        splats: In the world.
        options: What is wanted.
        axes: What the writer itself does to axes.
        ground: Height of the ground, y in the world, in metres.

    Raises:
        SceneError: Nothing is in the box.
    """
    if options.crop:
        splats = splats[in_crop(splats, options)]
    if options.splats is not None:
        from scenegen.export.budget import thinned  # scipy and numba: only where asked for

        splats = thinned(splats, options.splats)
    return _placement(options, axes, ground).splats(splats)


def in_crop(splats: Splats, options: ExportOptions) -> Bool[Tensor, " n"]:
    """Which splats have their centre in the box; all without one.

    Raises:
        SceneError: Nothing is in the box.
    """
    if options.crop is None:
        return torch.ones(len(splats), dtype=torch.bool)
    low, high = torch.tensor(options.crop, dtype=torch.float64).reshape(2, 3)
    inside = ((splats.means >= low) & (splats.means <= high)).all(1)
    if not inside.any():
        raise _empty(options)
    return inside


def chosen_mesh(
    mesh: trimesh.Trimesh, options: ExportOptions, axes: Axes, ground: float = 0.0
) -> trimesh.Trimesh:
    """The mesh to hand to a writer; arguments as for :func:`chosen_splats`.

    Raises:
        SceneError: No triangle is whole in the box.
    """
    mesh = mesh.copy()
    if options.crop:
        low, high = np.array(options.crop).reshape(2, 3)
        vertices = np.asarray(mesh.vertices)
        inside = np.asarray(np.all((vertices >= low) & (vertices <= high), axis=1))
        mesh.update_faces(inside[mesh.faces].all(1))
        mesh.remove_unreferenced_vertices()
        if len(mesh.faces) == 0:
            raise _empty(options)
    vertices = torch.from_numpy(np.array(mesh.vertices, np.float64))
    mesh.vertices = _placement(options, axes, ground).points(vertices).numpy()
    return mesh


def _placement(options: ExportOptions, axes: Axes, ground: float) -> Placement:
    """Turns what the writer turns into what is wanted: wanted = axes @ this."""
    wanted = torch.tensor(UPS[options.up] if options.up else axes)
    turn = (torch.tensor(axes).T @ wanted).tolist()
    x, y, z = options.origin or (0.0, 0.0, 0.0)
    start = torch.tensor([x, ground if options.ground else y, z], dtype=torch.float64)
    rotation: Axes = tuple(map(tuple, turn))  # type: ignore
    placed = Placement(rotation, options.scale)
    shift = -placed.points(start[None])[0] + 0.0
    return Placement(rotation, options.scale, tuple(shift.tolist()))  # type: ignore


def _empty(options: ExportOptions) -> SceneError:
    return SceneError(
        "there is nothing to export",
        why=f"the box {options.crop} is empty",
        fix="give a larger box: x is right, y down, z forward, in metres from where the "
        "photograph was taken",
    )
