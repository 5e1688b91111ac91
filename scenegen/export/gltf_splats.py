"""Splats as binary glTF with the extension KHR_gaussian_splatting: ``.splats.glb``.

Attributes of a cloud of points, all float32: POSITION, ROTATION (x y z w), SCALE (linear), OPACITY
(0 to 1) and harmonics as in a ``.ply``; COLOR_0 is what programs without the extension show. Axes
are those of our mesh ``.glb``: x right, y up, z backwards.

The stock validator knows no such extension; it reports each attribute with a colon as a mistake.
"""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from renderers.sh import SH_C0
from renderers.splats import Splats
from scenegen import __version__
from scenegen.export.atomic import atomic_write, cannot_read
from scenegen.export.colors import linear_from_srgb
from scenegen.export.placement import Y_UP, Placement
from scenegen.export.rows import Rows, bad_splats, rows_of, splats_from

logger = logging.getLogger("scenegen")

EXTENSION = "KHR_gaussian_splatting"
HEAD_LIMIT = 4 * 1024 * 1024
"""Largest description read, in bytes; ours have 5000."""
_FLOAT, _BYTE = 5126, 5121
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_NAMES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
_WANTED = {"POSITION"} | {
    f"{EXTENSION}:{name}"
    for name in (
        "ROTATION", "SCALE", "OPACITY",
        *(f"SH_DEGREE_{d}_COEF_{c}" for d in range(4) for c in range(2 * d + 1)),
    )
}  # fmt: skip
"""Attributes that are read: a file may name one piece of data a thousand times."""
_FIX = "export it again from the program that made it"


def write_splats_glb(path: str | Path, splats: Splats) -> None:
    """Write splats for programs that read glTF.

    Args:
        path: The file. It appears whole or not at all.
        splats: At least one; values as for :func:`write_ply`.

    Raises:
        SceneError: A value is out of range, or the file cannot be written.
    """
    path = Path(path)
    columns: dict[str, list[np.ndarray]] = {}
    for rows in rows_of(Placement(Y_UP).splats(splats), path.name):
        for name, part in _columns(rows).items():
            columns.setdefault(name, []).append(part)
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    head, size = _head(whole)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 28 + len(head) + size))
        file.write(struct.pack("<I4s", len(head), b"JSON") + head)
        file.write(struct.pack("<I4s", size, b"BIN\0"))
        for column in whole.values():
            file.write(column.data)
    logger.info("%s: %d splats; float32, no cameras, no memory, no steps", path, len(splats))


def read_splats_glb(path: str | Path) -> Splats:
    """Read the splats of a binary glTF.

    Args:
        path: The file. The first primitive with the extension is read, in float32, where the node
            that shows it is neither moved nor turned.

    Returns:
        At least one splat, float32, with unit quaternions, in our axes.

    Raises:
        SceneError: There is no such file, it is no such glTF, or cut short, or its values are not
            splats.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            tree, start, size = _parse(file, path)
            try:
                attributes, count = _attributes(tree, path)
                values = {
                    name: _read(file, tree, index, count, start, size, path)
                    for name, index in attributes.items()
                }
            except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
                why = f"its description is broken: {type(error).__name__} {error}"
                raise bad_splats(path, why, _FIX) from error
    except OSError as error:
        raise cannot_read(path, error) from error
    k = {1: 0, 4: 3, 9: 8, 16: 15}.get(sum(name.startswith("SH_") for name in values), -1)
    names = [f"SH_DEGREE_{d}_COEF_{c}" for d in range(4) for c in range(2 * d + 1)][: k + 1]
    missing = {"POSITION", "ROTATION", "SCALE", "OPACITY", *names} - values.keys()
    if k < 0 or missing:
        what = ", ".join(sorted(missing)) or "whole degrees of harmonics"
        raise bad_splats(path, f"it has no {what}", _FIX)
    fields = {
        "means": values["POSITION"],
        "quats": values["ROTATION"].roll(1, 1),
        "scales": values["SCALE"],
        "opacities": values["OPACITY"][:, 0],
        "colors": values[names[0]] * SH_C0 + 0.5,
        "sh": torch.stack([values[name] for name in names[1:]], 1) if k else None,
    }
    return Placement(Y_UP).splats(splats_from(path, fields, _FIX))


def _columns(rows: Rows) -> dict[str, np.ndarray]:
    rgba = torch.cat([rows.colors.clamp(0, 1), rows.opacities[:, None]], 1).numpy()
    columns: dict[str, Tensor] = {
        "POSITION": rows.means,
        f"{EXTENSION}:ROTATION": rows.quats.roll(-1, 1),
        f"{EXTENSION}:SCALE": rows.scales,
        f"{EXTENSION}:OPACITY": rows.opacities[:, None],
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": (rows.colors - 0.5) / SH_C0,
    }
    if rows.sh is not None:
        names = [f"SH_DEGREE_{d}_COEF_{c}" for d in (1, 2, 3) for c in range(2 * d + 1)]
        columns |= {f"{EXTENSION}:{name}": sh for name, sh in zip(names, rows.sh.unbind(1))}  # noqa: B905
    table = {name: values.numpy().astype("<f4") for name, values in columns.items()}
    rgba[:, :3] = linear_from_srgb(rgba[:, :3])
    return table | {"COLOR_0": np.rint(rgba * 255).astype(np.uint8)}


def _head(columns: dict[str, np.ndarray]) -> tuple[bytes, int]:
    """The description, padded to four bytes, and the size of what it describes."""
    views, accessors, at = [], [], 0
    for name, column in columns.items():
        views.append({"buffer": 0, "byteOffset": at, "byteLength": column.nbytes, "target": 34962})
        accessor: dict[str, Any] = {
            "bufferView": len(accessors), "count": len(column), "type": _NAMES[column.shape[1]],
            "componentType": _BYTE if column.dtype == np.uint8 else _FLOAT,
        }  # fmt: skip
        if column.dtype == np.uint8:
            accessor["normalized"] = True
        if name == "POSITION":
            accessor["min"], accessor["max"] = column.min(0).tolist(), column.max(0).tolist()
        accessors.append(accessor)
        at += column.nbytes
    splatting = {
        "kernel": "ellipse", "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance", "projection": "perspective",
    }  # fmt: skip
    primitive = {
        "attributes": {name: index for index, name in enumerate(columns)},
        "mode": 0,
        "extensions": {EXTENSION: splatting},
    }
    tree = {
        "asset": {"version": "2.0", "generator": f"scenegen {__version__}"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": at}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    return text + b" " * (-len(text) % 4), at


def _parse(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int, int]:
    """The description, where the data begin and how many there are, in bytes."""
    head = file.read(20)
    if head[:4] != b"glTF" or len(head) < 20 or head[16:] != b"JSON":
        raise bad_splats(path, "it is not a binary glTF file", "give a .glb of splats")
    length = struct.unpack("<I", head[12:16])[0]
    if length > HEAD_LIMIT:
        raise bad_splats(path, f"its description has {length} bytes; {HEAD_LIMIT} are read")
    try:
        tree = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise bad_splats(path, f"its description is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise bad_splats(path, "its description is not a JSON object")
    start = 28 + length
    return tree, start, max(0, file.seek(0, 2) - start)


def _attributes(tree: dict[str, Any], path: Path) -> tuple[dict[str, int], int]:
    """Accessors by name without the extension's prefix, and the number of splats."""
    for number, mesh in enumerate(tree.get("meshes", [])):
        for primitive in mesh["primitives"]:
            if EXTENSION not in primitive.get("extensions", {}):
                continue
            if _moved(tree.get("nodes", []), number):
                raise bad_splats(path, "its splats are moved or turned by a node", _FIX)
            if primitive["extensions"][EXTENSION].get("extensions"):
                raise bad_splats(path, "its splats are compressed by another extension", _FIX)
            names = {name.removeprefix(f"{EXTENSION}:"): index
                     for name, index in primitive["attributes"].items()
                     if name in _WANTED}  # fmt: skip
            return names, int(tree["accessors"][names["POSITION"]]["count"])
    raise bad_splats(path, f"no part of it uses {EXTENSION}: it is a mesh or a cloud of points",
                     "give a .glb of splats")  # fmt: skip


def _moved(nodes: list[dict[str, Any]], mesh: int) -> bool:
    """Whether a node that shows the mesh, or one above it, moves, turns or scales."""
    above = {child: i for i, node in enumerate(nodes) for child in node.get("children", [])}
    seen: set[int] = set()  # a hostile tree may be a ring, or one long chain many times over
    for index, node in enumerate(nodes):
        at = index if node.get("mesh") == mesh else None
        while at is not None and at not in seen:
            seen.add(at)
            if nodes[at].keys() & {"matrix", "rotation", "scale", "translation"}:
                return True
            at = above.get(at)
    return False


def _read(
    file: BinaryIO, tree: dict[str, Any], index: int, count: int, start: int, size: int, path: Path
) -> Tensor:
    """One attribute (count, width), once it is known to lie in the file."""
    accessor = tree["accessors"][index]
    view = tree["bufferViews"][accessor["bufferView"]]
    width = _WIDTHS[accessor["type"]]
    if accessor["componentType"] != _FLOAT or "sparse" in accessor or view.get("buffer", 0) != 0:
        raise bad_splats(path, "an attribute is not stored as float32 in the file itself", _FIX)
    if accessor["count"] != count or view.get("byteStride", 4 * width) != 4 * width or count < 1:
        raise bad_splats(path, "its attributes differ in length, or are interleaved", _FIX)
    at = int(view.get("byteOffset", 0)) + int(accessor.get("byteOffset", 0))
    if at < 0 or at + 4 * width * count > size:
        why = f"it is cut short: {count} splats are promised"
        raise bad_splats(path, why, "copy or download it again")
    file.seek(start + at)
    data = np.frombuffer(file.read(4 * width * count), "<f4")
    return torch.from_numpy(data.reshape(count, width).copy())
