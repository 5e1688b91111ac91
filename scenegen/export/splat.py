"""Splats as ``.splat``, 32 bytes each, the first format of browsers (antimatter15).

Position and scale in float32, colour and opacity in bytes, a quaternion w x y z in bytes. Axes are
as in memory. The file has no header: what it is, only its name says.

What it cannot hold: harmonics, so colours do not change with the side they are seen from; colours
outside of 0 to 1; rotations to better than half a degree.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import torch

from renderers.splats import Splats
from scenegen.export.atomic import atomic_write, cannot_read
from scenegen.export.rows import ROWS, Rows, bad_splats, quantised, rows_of, splats_from

logger = logging.getLogger("scenegen")

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
"""One splat."""


def write_splat(path: str | Path, splats: Splats) -> None:
    """Write splats for older browser viewers.

    Args:
        path: The file. It appears whole or not at all.
        splats: At least one; values as for :func:`write_ply`. Harmonics are left out.

    Raises:
        SceneError: A value is out of range, or the file cannot be written.
    """
    path = Path(path)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for rows in rows_of(splats, path.name):
            file.write(packed(rows).tobytes())
    logger.info(
        "%s: %d splats; no harmonics, 8 bits for colour, opacity and rotation, no cameras, no "
        "memory, no steps", path, len(splats),
    )  # fmt: skip


def read_splat(path: str | Path) -> Splats:
    """Read splats, ours or another program's.

    Args:
        path: The file.

    Returns:
        At least one splat, float32, with unit quaternions.

    Raises:
        SceneError: There is no such file, its size is not that of splats, or its values are not.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0 or size % ROW.itemsize:
                why = f"it has {size} bytes, and {ROW.itemsize} of them make a splat"
                raise bad_splats(path, why, "copy or download it again")
            table = np.fromfile(file, ROW)
    except OSError as error:
        raise cannot_read(path, error) from error
    parts = [_unpacked(table[start : start + ROWS]) for start in range(0, len(table), ROWS)]
    fields = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return splats_from(path, fields, "give a .splat; clean it with `splat-transform --filter-nan`")


def packed(rows: Rows) -> np.ndarray:
    """The bytes of a block of splats, as an array of ROW."""
    table = np.empty(len(rows.means), ROW)
    table["mean"], table["scale"] = rows.means.numpy(), rows.scales.numpy()
    rgba = torch.cat([rows.colors, rows.opacities[:, None]], dim=1)
    table["rgba"] = quantised(rgba, 0.0, 1.0)
    table["quat"] = quantised(rows.quats, -1.0, 127.0 / 128.0)
    return table


def _unpacked(table: np.ndarray) -> dict[str, torch.Tensor]:
    rgba = torch.from_numpy(table["rgba"] / np.float32(255.0))
    return {
        "means": torch.from_numpy(table["mean"].copy()),
        "scales": torch.from_numpy(table["scale"].copy()),
        "quats": torch.from_numpy((table["quat"].astype(np.float32) - 128.0) / 128.0),
        "opacities": rgba[:, 3],
        "colors": rgba[:, :3],
    }
