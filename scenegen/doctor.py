"""What runs on this machine, what does not, why, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from renderers.errors import SceneError

ROOT = Path(__file__).resolve().parents[1]
"""Folder that holds all four packages."""
OWN_PACKAGES = ("renderers", "spatial_memory", "scenegen", "viewer")
LIBRARIES = (
    "torch",
    "numpy",
    "numba",
    "gsplat",
    "kornia",
    "open3d",
    "trimesh",
    "viser",
    "onnxruntime",
    "pypatchmatch",
    "imageio-ffmpeg",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox")


def check_own_packages() -> None:
    """Make sure that the packages imported are ours.

    Other distributions on the Python index use the names ``renderers`` and ``scenegen``, and
    would shadow ours without a word.

    Raises:
        SceneError: A package of the same name from elsewhere is imported.
    """
    for name in OWN_PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != ROOT:
            raise SceneError(
                f"the package {name!r} is not the one of scenegen",
                why=f"Python imports {origin or 'nothing'} instead of {ROOT / name}",
                fix=f"run `pip uninstall {name}`, or use a fresh virtual environment",
            )


def examine() -> dict[str, Any]:
    """Everything `scenegen doctor` reports, as plain data."""
    import torch

    from renderers import RENDERERS
    from scenegen import __version__, models
    from scenegen.geometry import DEPTH_BACKENDS
    from scenegen.outpaint import OUTPAINTERS

    tables = {"renderer": RENDERERS, "depth": DEPTH_BACKENDS, "outpaint": OUTPAINTERS}
    return {
        "scenegen": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "libraries": {name: _version(name) for name in LIBRARIES},
        "backends": {
            kind: {
                name: {"missing": entry.missing(), "fix": entry.fix, "about": entry.about}
                for name, entry in table.items()
            }
            for kind, table in tables.items()
        },
        "models": {name: models.is_present(name) for name in models.MODELS},
        "models_folder": str(models.installed_folder()),
        "kernel_cache": os.environ.get("NUMBA_CACHE_DIR") or "beside the packages",
        "meshes": _mesh_trouble(),
        "browser": next((name for name in BROWSERS if shutil.which(name)), None),
    }


def report_lines(findings: dict[str, Any]) -> list[str]:
    """The findings of :func:`examine` as text, one line each."""
    lines = [
        f"scenegen {findings['scenegen']} on Python {findings['python']}, {findings['system']}, "
        f"{findings['cores']} cores",
        f"GPU: {findings['gpu'] or 'none that torch sees; everything runs on the CPU'}",
    ]
    for kind, table in findings["backends"].items():
        lines.append(f"{kind}:")
        for name, entry in table.items():
            state = "no " if entry["missing"] else "yes"
            lines.append(f"  {state} {name:10} {entry['about']}")
            if entry["missing"]:
                lines += [f"      why: {entry['missing']}", f"      fix: {entry['fix']}"]
    present = [name for name, here in findings["models"].items() if here]
    lines.append(f"pulled models: {', '.join(present) or 'none'}, in {findings['models_folder']}")
    lines.append(f"compiled kernels: {findings['kernel_cache']}")
    lines.append(
        f"browser: {findings['browser'] or 'none found; open the printed address yourself'}"
    )
    if trouble := findings["meshes"]:
        lines += ["meshes: no", f"  why: {trouble['why']}", f"  fix: {trouble['fix']}"]
    versions = (f"{name} {version or 'MISSING'}" for name, version in findings["libraries"].items())
    lines.append(f"libraries: {', '.join(versions)}")
    missing = [name for name, version in findings["libraries"].items() if version is None]
    if missing:
        lines += [
            f"  why: {', '.join(missing)} not installed",
            "  fix: pip install scenegen-worlds",
        ]
    return lines


def _mesh_trouble() -> dict[str, str] | None:
    """Why meshes cannot be exported, and what to do; None where they can."""
    from scenegen.export.fusion import open3d

    try:
        open3d()
    except SceneError as error:
        return {"why": error.why, "fix": error.fix}
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
