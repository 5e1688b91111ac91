"""Splats as a ``.ply`` with the names of 3D Gaussian Splatting (Kerbl et al. 2023): most viewers.

Binary little endian float32, one row per splat. Axes are as in memory: OpenCV, metres.

  x y z            centre
  nx ny nz         zero; some programs expect them
  f_dc_0..2        (colour - 0.5) / 0.28209479177387814
  f_rest_*         further harmonics: all of red, then all of green, then all of blue
  opacity          logit of the opacity
  scale_0..2       natural logarithm of the standard deviation
  rot_0..3         unit quaternion w x y z
  provenance_*     on request: step, the number of the step it came with; origin, 0 photograph,
                   1 generated, 2 imported. Floats too: some programs take every property for one

What it cannot hold: an opacity of exactly 0 or 1 and a scale of 0, whose logarithms are infinite
(see OPACITY_MARGIN, SCALE_MIN); the length of quaternions; precision beyond float32.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor

from renderers.sh import SH_C0
from renderers.splats import SH_SIZES, Splats
from scenegen import __version__
from scenegen.export.atomic import atomic_write, cannot_read
from scenegen.export.compressed_ply import read_chunks
from scenegen.export.ply_header import Element, read_header
from scenegen.export.rows import ROWS, Rows, bad_splats, rows_of, splats_from

logger = logging.getLogger("scenegen")

OPACITY_MARGIN = 1e-6
"""Opacities are written as at least this and at most 1 minus this, so that logits are finite."""
SCALE_MIN = 1e-9
"""Scales are written as at least this, in metres, so that logarithms are finite."""
PROVENANCE = "provenance_"
"""How properties that say where a splat comes from begin."""
WHOLE_MAX = 1 << 24
"""Up to here float32 holds every whole number."""

_CORE = [
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
]  # fmt: skip
_SAID = [PROVENANCE + "step", PROVENANCE + "origin"]
_REST_COUNTS = tuple(3 * k for k in SH_SIZES)


def write_ply(
    path: str | Path, splats: Splats, provenance: Mapping[str, Tensor] | None = None
) -> None:
    """Write splats for other programs.

    Args:
        path: The file. It appears whole or not at all.
        splats: At least one. Their values must be finite, opacities 0 to 1, scales not
            negative, quaternions not zero.
        provenance: Whole numbers of each splat, 0 to WHOLE_MAX, by name: "step" and "origin".

    Raises:
        SceneError: A value above is out of range, or the file cannot be written.
    """
    path = Path(path)
    rest = 0 if splats.sh is None else 3 * splats.sh.shape[1]
    names = [*_CORE[:3], "nx", "ny", "nz", *_CORE[3:6]]
    names += [f"f_rest_{i}" for i in range(rest)] + _CORE[6:]
    columns = list((provenance or {}).values())
    assert all(len(column) == len(splats) for column in columns)
    names += [PROVENANCE + name for name in provenance or {}]
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(_header_text(len(splats), names))
        for rows in rows_of(splats, path.name):
            further = [column[rows.place, None].float().numpy() for column in columns]
            file.write(np.concatenate([_values(rows), *further], 1).data)
    logger.info(
        "%s: %d splats; float32, opacity within %g of 0 and 1, no cameras, no memory, no steps",
        path, len(splats), OPACITY_MARGIN,
    )  # fmt: skip


def read_ply(path: str | Path) -> Splats:
    """Read splats from a 3DGS file or a compressed.ply, ours or another program's.

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
            elements = read_header(file, path)
            if elements[0].name == "chunk":
                return read_chunks(file, elements, path)
            names = _wanted(elements[0], path)
            values = _read_values(file, elements[0], names, path)
    except OSError as error:
        raise cannot_read(path, error) from error
    return _to_splats(torch.from_numpy(values), path)


def read_provenance(path: str | Path) -> dict[str, Int32[Tensor, " n"]] | None:
    """Where the splats of a file come from, as :func:`write_ply` wrote it.

    Args:
        path: A ``.ply`` of splats.

    Returns:
        "step" and "origin" of each splat, 0 to WHOLE_MAX; None when the file does not say.

    Raises:
        SceneError: As for :func:`read_ply`; or a value is no such whole number.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            vertex = read_header(file, path)[0]
            if not set(_SAID) <= set(vertex.row.names or ()):
                return None
            values = _read_values(file, vertex, _SAID, path)
    except OSError as error:
        raise cannot_read(path, error) from error
    whole = (values >= 0) & (values <= WHOLE_MAX) & (values == np.floor(values))
    if not whole.all():
        raise bad_splats(path, "where a splat comes from is not a whole number", "leave it out")
    columns = torch.from_numpy(values.astype(np.int32)).unbind(1)
    return {name.removeprefix(PROVENANCE): c for name, c in zip(_SAID, columns, strict=True)}


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


def _values(rows: Rows) -> np.ndarray:
    """Rows of the file, in the order of the header."""
    columns = [
        rows.means,
        torch.zeros_like(rows.means),
        (rows.colors - 0.5) / SH_C0,
        torch.logit(rows.opacities, OPACITY_MARGIN)[:, None],
        torch.log(rows.scales.clamp_min(SCALE_MIN)),
        rows.quats,
    ]
    if rows.sh is not None:
        columns.insert(3, rows.sh.transpose(1, 2).reshape(len(rows.sh), -1))
    return torch.cat([column.float() for column in columns], dim=1).numpy().astype("<f4")


def _wanted(vertex: Element, path: Path) -> list[str]:
    """The properties to read, in our order, once they are known to be there as floats."""
    there = vertex.row.names or ()
    rest = [name for name in there if name.startswith("f_rest_")]
    names = _CORE + [f"f_rest_{i}" for i in range(len(rest))]
    missing = [name for name in names if name not in there]
    if missing:
        raise bad_splats(
            path,
            f"it has no {', '.join(missing[:5])}: not splats, or in another program's own format",
            "give a 3DGS .ply",
        )
    if len(rest) not in _REST_COUNTS:
        raise bad_splats(
            path,
            f"it has {len(rest)} f_rest properties; 3DGS files have 0, 9, 24 or 45",
            "export it again from the program that made it",
        )
    wrong = [name for name in names if vertex.row[name].kind != "f"]
    if wrong:
        raise bad_splats(
            path,
            f"{wrong[0]} is stored as an integer, where 3DGS stores a float",
            "export it again from the program that made it",
        )
    return names


def _read_values(
    file: BinaryIO, vertex: Element, names: list[str], path: Path
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Columns ``names`` of every row: (count, len(names))."""
    values = np.empty((vertex.count, len(names)), np.float32)
    file.seek(vertex.start)
    for start in range(0, vertex.count, ROWS):
        count = min(ROWS, vertex.count - start)
        data = file.read(count * vertex.row.itemsize)
        if len(data) < count * vertex.row.itemsize:
            raise bad_splats(path, "it became shorter while it was read", "read it again")
        block = np.frombuffer(data, vertex.row)
        with np.errstate(over="ignore"):  # a double beyond float32 becomes inf, refused later
            for column, name in enumerate(names):
                values[start : start + count, column] = block[name]
    return values


def _to_splats(values: Tensor, path: Path) -> Splats:
    """Physical values from the columns of ``_CORE`` and ``f_rest_*``."""
    rest = values[:, 14:]
    fields = {
        "means": values[:, :3],
        "quats": values[:, 10:14],
        "scales": torch.exp(values[:, 7:10]),
        "opacities": torch.sigmoid(values[:, 6].double()),
        "colors": values[:, 3:6].double() * SH_C0 + 0.5,
        "sh": rest.reshape(len(rest), 3, -1).transpose(1, 2) if rest.shape[1] else None,
    }
    fix = "clean it: `splat-transform in.ply --filter-nan out.ply`, or export it again"
    return splats_from(path, fields, fix)
