"""A world as files for other programs, and files of other programs as ours. One file per format.

>>> from scenegen import export
>>> export.export_file("street.ply", splats=world.splats)

Every writer puts its file there whole or not at all. What is an axis, a logarithm or a logit in
a file is converted here and nowhere else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.export.atomic import atomic_write
    from scenegen.export.compressed_ply import write_compressed_ply
    from scenegen.export.dataset import Frame, write_dataset, write_frame
    from scenegen.export.formats import FORMATS, Format, Reader, Writer, export_file, read_splats
    from scenegen.export.images import (
        write_depth,
        write_depth_png,
        write_normals,
        write_normals_png,
        write_png,
    )
    from scenegen.export.mesh import mesh_from_depth, write_glb
    from scenegen.export.options import ExportOptions
    from scenegen.export.ply import read_ply, read_provenance, write_ply
    from scenegen.export.sheets import DepthView
    from scenegen.export.splat import read_splat, write_splat
    from scenegen.export.spz import read_spz, write_spz
    from scenegen.export.transforms import read_transforms, write_transforms
    from scenegen.export.video import write_mp4

_HOME = {
    "atomic_write": "scenegen.export.atomic",
    "FORMATS": "scenegen.export.formats",
    "Format": "scenegen.export.formats",
    "Reader": "scenegen.export.formats",
    "Writer": "scenegen.export.formats",
    "export_file": "scenegen.export.formats",
    "read_splats": "scenegen.export.formats",
    "write_compressed_ply": "scenegen.export.compressed_ply",
    "read_splat": "scenegen.export.splat",
    "write_splat": "scenegen.export.splat",
    "read_spz": "scenegen.export.spz",
    "write_spz": "scenegen.export.spz",
    "ExportOptions": "scenegen.export.options",
    "Frame": "scenegen.export.dataset",
    "write_dataset": "scenegen.export.dataset",
    "write_frame": "scenegen.export.dataset",
    "write_depth": "scenegen.export.images",
    "write_depth_png": "scenegen.export.images",
    "write_normals": "scenegen.export.images",
    "write_normals_png": "scenegen.export.images",
    "write_png": "scenegen.export.images",
    "DepthView": "scenegen.export.sheets",
    "mesh_from_depth": "scenegen.export.mesh",
    "write_glb": "scenegen.export.mesh",
    "read_ply": "scenegen.export.ply",
    "read_provenance": "scenegen.export.ply",
    "write_ply": "scenegen.export.ply",
    "read_transforms": "scenegen.export.transforms",
    "write_transforms": "scenegen.export.transforms",
    "write_mp4": "scenegen.export.video",
}
__all__ = [
    "FORMATS",
    "DepthView",
    "ExportOptions",
    "Format",
    "Frame",
    "Reader",
    "Writer",
    "atomic_write",
    "export_file",
    "mesh_from_depth",
    "read_ply",
    "read_provenance",
    "read_splat",
    "read_splats",
    "read_spz",
    "read_transforms",
    "write_compressed_ply",
    "write_dataset",
    "write_depth",
    "write_depth_png",
    "write_frame",
    "write_glb",
    "write_mp4",
    "write_normals",
    "write_normals_png",
    "write_ply",
    "write_png",
    "write_splat",
    "write_spz",
    "write_transforms",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.export' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
