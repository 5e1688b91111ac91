"""Splats as a ``.ply`` with the names of 3D Gaussian Splatting (Kerbl et al. 2023): most viewers.

Binary little endian float32, one row per splat. Axes are as in memory: OpenCV, metres.

  x y z            centre
  nx ny nz         zero; some programs expect them
  f_dc_0..2        (colour - 0.5) / 0.28209479177387814
  f_rest_*         further harmonics: all of red, then all of green, then all of blue
  opacity          logit of the opacity
  scale_0..2       natural logarithm of the standard deviation
  rot_0..3         unit quaternion w x y z

What it cannot hold: an opacity of exactly 0 or 1 and a scale of 0, whose logarithms are infinite
(see OPACITY_MARGIN, SCALE_MIN); the length of quaternions; precision beyond float32.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from renderers.errors import SceneError
from renderers.sh import SH_C0
from renderers.splats import SH_SIZES, Splats
from scenegen import __version__
from scenegen.export.atomic import atomic_write, cannot_read
from scenegen.export.ply_header import PlyHeader, bad_ply, read_header

logger = logging.getLogger("scenegen")

OPACITY_MARGIN = 1e-6
"""Opacities are written as at least this and at most 1 minus this, so that logits are finite."""
SCALE_MIN = 1e-9
"""Scales are written as at least this, in metres, so that logarithms are finite."""
ROWS = 1 << 16
"""Splats converted at once: bounds the memory beyond the splats themselves."""

_CORE = [
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
]  # fmt: skip
_REST_COUNTS = tuple(3 * k for k in SH_SIZES)


def write_ply(path: str | Path, splats: Splats) -> None:
    """Write splats for other programs.

    Args:
        path: The file. It appears whole or not at all.
        splats: At least one. Their values must be finite, opacities 0 to 1, scales not
            negative, quaternions not zero.

    Raises:
        SceneError: A value above is out of range, or the file cannot be written.
    """
    if len(splats) == 0:
        raise SceneError(
            "there are no splats to write",
            why="an empty file would open as a blank scene in other programs",
            fix="create or grow the world first",
        )
    rest = 0 if splats.sh is None else 3 * splats.sh.shape[1]
    names = [*_CORE[:3], "nx", "ny", "nz", *_CORE[3:6]]
    names += [f"f_rest_{i}" for i in range(rest)] + _CORE[6:]
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(_header_text(len(splats), names))
        for start in range(0, len(splats), ROWS):
            file.write(_rows_of(splats[start : start + ROWS].detach(), start).data)
    logger.info(
        "%s: %d splats; float32, opacity within %g of 0 and 1, no cameras, no memory, no steps",
        path, len(splats), OPACITY_MARGIN,
    )  # fmt: skip


def read_ply(path: str | Path) -> Splats:
    """Read splats from a 3DGS file, ours or another program's.

    Properties may stand in any order, further ones are ignored, ``f_rest_*`` may be missing.
    An infinite opacity logit means opacity 0 or 1 and an infinitely negative scale means 0, as
    some programs write them. Axes are taken as they are.

    Args:
        path: Binary little endian PLY.

    Returns:
        At least one splat, float32, with unit quaternions.

    Raises:
        SceneError: There is no such file, it is not a splat PLY, it is cut short, or its values
            are not splats. Nothing is allocated before the file proves to be large enough.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = read_header(file, path)
            names = _wanted(header, path)
            values = _read_values(file, header, names, path)
    except OSError as error:
        raise cannot_read(path, error) from error
    return _to_splats(torch.from_numpy(values), path)


def _header_text(count: int, names: list[str]) -> bytes:
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment scenegen {__version__}",
        "comment axes OpenCV: x right, y down, z forward; metres",
        f"element vertex {count}",
        *(f"property float {name}" for name in names),
        "end_header",
    ]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _rows_of(part: Splats, first: int) -> np.ndarray:
    """Rows of the file, in the order of the header; ``first`` counts rows for messages."""
    means, quats, scales, opacities, colors = (
        values.cpu().double()
        for values in (part.means, part.quats, part.scales, part.opacities, part.colors)
    )
    length = torch.linalg.norm(quats, dim=1, keepdim=True)
    _require(length[:, 0] > 0, first, "a quaternion is zero or NaN", "a rotation needs a direction")
    _require((opacities >= 0) & (opacities <= 1), first, "an opacity is not within 0 to 1")
    _require((scales >= 0).all(1), first, "a scale is negative or NaN")
    columns = [
        means,
        torch.zeros_like(means),
        (colors - 0.5) / SH_C0,
        torch.logit(opacities, OPACITY_MARGIN)[:, None],
        torch.log(scales.clamp_min(SCALE_MIN)),
        quats / length,
    ]
    if part.sh is not None:
        columns.insert(3, part.sh.cpu().transpose(1, 2).reshape(len(part), -1))
    rows = torch.cat([column.float() for column in columns], dim=1)
    _require(torch.isfinite(rows).all(1), first, "a value is NaN, infinite or beyond float32")
    return rows.numpy().astype("<f4", copy=False)


def _require(fine: Tensor, first: int, why: str, hint: str = "other programs would fail") -> None:
    if not fine.all():
        row = first + int(torch.nonzero(~fine)[0, 0])
        raise SceneError(
            f"splat {row} cannot be written",
            why=f"{why}; {hint}",
            fix="drop such splats first: splats[mask] keeps the rows of a mask",
        )


def _wanted(header: PlyHeader, path: Path) -> list[str]:
    """The properties to read, in our order, once they are known to be there as floats."""
    there = header.row.names or ()
    rest = [name for name in there if name.startswith("f_rest_")]
    names = _CORE + [f"f_rest_{i}" for i in range(len(rest))]
    missing = [name for name in names if name not in there]
    if missing:
        raise bad_ply(
            path,
            f"it has no {', '.join(missing[:5])}: not splats, or in another program's own format",
            "give a 3DGS .ply; `splat-transform` converts compressed.ply, .splat, .spz and .sog",
        )
    if len(rest) not in _REST_COUNTS:
        raise bad_ply(
            path,
            f"it has {len(rest)} f_rest properties; 3DGS files have 0, 9, 24 or 45",
            "export it again from the program that made it",
        )
    wrong = [name for name in names if header.row[name].kind != "f"]
    if wrong:
        raise bad_ply(
            path,
            f"{wrong[0]} is stored as an integer, where 3DGS stores a float",
            "export it again from the program that made it",
        )
    return names


def _read_values(
    file: BinaryIO, header: PlyHeader, names: list[str], path: Path
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Columns ``names`` of every row: (count, len(names))."""
    values = np.empty((header.count, len(names)), np.float32)
    file.seek(header.size)
    for start in range(0, header.count, ROWS):
        count = min(ROWS, header.count - start)
        data = file.read(count * header.row.itemsize)
        if len(data) < count * header.row.itemsize:
            raise bad_ply(path, "it became shorter while it was read", "read it again")
        block = np.frombuffer(data, header.row)
        with np.errstate(over="ignore"):  # a double beyond float32 becomes inf, refused later
            for column, name in enumerate(names):
                values[start : start + count, column] = block[name]
    return values


def _to_splats(values: Tensor, path: Path) -> Splats:
    """Physical values from the columns of ``_CORE`` and ``f_rest_*``."""
    length = torch.linalg.norm(values[:, 10:14].double(), dim=1, keepdim=True)
    rest = values[:, 14:]
    splats = Splats(
        means=values[:, :3].clone(),
        quats=(values[:, 10:14] / length).float(),
        scales=torch.exp(values[:, 7:10]),
        opacities=torch.sigmoid(values[:, 6].double()).float(),
        colors=(values[:, 3:6].double() * SH_C0 + 0.5).float(),
        sh=rest.reshape(len(rest), 3, -1).transpose(1, 2).clone() if rest.shape[1] else None,
    )
    fine = torch.ones(len(values), dtype=torch.bool)
    for name in ("means", "quats", "scales", "opacities", "colors", "sh"):
        field = getattr(splats, name)
        if field is not None:
            fine &= torch.isfinite(field.reshape(len(values), -1)).all(1)
    if not fine.all():
        raise bad_ply(
            path,
            f"{int((~fine).sum())} of {len(fine)} splats hold NaN, infinity or a zero quaternion "
            f"(the first is splat {int(torch.nonzero(~fine)[0, 0])})",
            "clean it: `splat-transform in.ply --filter-nan out.ply`, or export it again",
        )
    return splats
