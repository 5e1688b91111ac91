"""Splats as the kernels read them: finite, drawable, float32, in blocks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from renderers.base import ALPHA_CUT
from renderers.cpu.project import COLUMNS, N
from renderers.reference import rotation_matrices
from renderers.splats import Splats

SCALE_MAX = 1e9
"""In metres. A larger splat looks the same, and its variance would leave float32."""


@dataclass(frozen=True, eq=False)
class PackedScene:
    """The drawable rows of a set of splats."""

    blocks: Float32[np.ndarray, "b size"]
    """project.COLUMNS of N splats each. What fills up the last block has no opacity."""
    rows: Int64[Tensor, " m"]
    """Row in the splats of each packed row, rising."""
    stamp: tuple[tuple[int, int], ...]
    """State of the splats' memory when they were packed."""


_scenes: WeakKeyDictionary[Splats, PackedScene] = WeakKeyDictionary()


def packed(splats: Splats) -> PackedScene:
    """The packed form of ``splats``, made on first use and kept for as long as they live.

    Rows that no camera can see are left out: NaN or infinite values, a zero quaternion, an
    opacity below ALPHA_CUT. Call it under RENDER_LOCK.
    """
    stamp = _stamp(splats)
    scene = _scenes.get(splats)
    if scene is None or scene.stamp != stamp:
        scene = _scenes[splats] = _pack(splats.detach(), stamp)
    return scene


def _stamp(splats: Splats) -> tuple[tuple[int, int], ...]:
    """Changes when an optimiser writes into the tensors of otherwise immutable splats."""
    values = (getattr(splats, field.name) for field in fields(splats))
    return tuple(
        (value.data_ptr(), 0 if value.is_inference() else value._version)
        for value in values
        if value is not None
    )


def _pack(splats: Splats, stamp: tuple[tuple[int, int], ...]) -> PackedScene:
    splats = splats.to(torch.device("cpu"))
    single = splats.to(torch.float32)  # where a value too large counts as infinite
    rows = torch.nonzero(single.drawable & (single.opacities >= ALPHA_CUT))[:, 0]
    chosen = splats[rows]
    scales = chosen.scales.double().clamp(-SCALE_MAX, SCALE_MAX)
    axes = rotation_matrices(chosen.quats.double()) * scales[:, None, :]
    count = -(-len(rows) // N)
    table = np.zeros((count * N, COLUMNS), np.float32)
    table[:, 12] = -np.inf
    filled = table[: len(rows)]
    filled[:, 0:3] = chosen.means.float().numpy()
    filled[:, 3:12] = axes.reshape(-1, 9).numpy()
    filled[:, 12] = torch.log2(chosen.opacities.double()).numpy()
    filled[:, 13:16] = chosen.colors.float().numpy()
    columns = np.ascontiguousarray(table.reshape(count, N, COLUMNS).transpose(0, 2, 1))
    return PackedScene(columns.reshape(count, COLUMNS * N), rows, stamp)
