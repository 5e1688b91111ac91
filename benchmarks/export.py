"""How long exports take, how much memory they need, and how large the files are.

    python benchmarks/export.py [--splats 1500000] [--out FILE.json]

Each export runs in a process of its own, so that memory is its own. CPU time stands beside wall
time. The splats lie on the walls of a room; the mesh and the collider are fused from twelve
views of a room of exact depth.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from renderers import Camera, Splats
from scenegen.export import DepthView, export_file, mesh_from_depth, read_splats
from scenegen.export.formats import FORMATS

BUDGETS = {"ply": 3.0, "spz": 10.0, "collider.glb": 60.0}
"""Seconds allowed for 1.5 million splats."""
MEMORY = 3.0
"""GB allowed."""


def many(count: int) -> Splats:
    """Discs on the walls of a box, one per pixel of a turning depth camera."""
    rng = torch.Generator().manual_seed(0)
    rays = torch.randn(count, 3, generator=rng)
    means = (
        rays * (torch.tensor([3.0, 1.5, 3.0]) / rays.abs().clamp_min(1e-9)).min(1).values[:, None]
    )
    quats = torch.randn(count, 4, generator=rng)
    scales = 0.004 * torch.rand(count, 3, generator=rng).add(0.2)
    colors = 0.5 + 0.5 * torch.sin(7 * means)
    return Splats(means, quats, scales, 0.6 + 0.39 * torch.rand(count, generator=rng), colors)


def views(width: int = 768, height: int = 576) -> list[DepthView]:
    """Twelve views that turn around in a room of 4 x 2.4 x 8 m."""
    made = []
    for index in range(12):
        camera = Camera.from_fov(60, width, height).moved(yaw_degrees=30.0 * index)
        ones = torch.ones(height, width)
        rays = camera.unproject(camera.pixel_centers(), ones) - camera.center
        walls = torch.tensor([2.0, 1.2, 4.0]) / rays.abs().clamp_min(1e-9)
        depth = walls.min(-1).values
        rgb = 0.5 + 0.4 * torch.sin(5 * rays * depth[..., None])
        made.append(DepthView(rgb, depth, camera))
    return made


def one(name: str, count: int) -> dict[str, float | str]:
    """Export, and read back where the format is read."""
    splats = many(count if FORMATS[name].source == "splats" else 1)
    seen = [] if FORMATS[name].source == "splats" else views()
    base = _memory()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"room.{name}"
        wall, cpu = time.monotonic(), time.process_time()
        export_file(
            path, splats=splats, mesh=lambda most: mesh_from_depth(seen, max_triangles=most),
            ground=1.2,
        )  # fmt: skip
        result: dict[str, float | str] = {
            "format": name,
            "seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "megabytes": path.stat().st_size / 1e6,
        }
        if FORMATS[name].reader:
            wall = time.monotonic()
            read_splats(path)
            result["read_seconds"] = time.monotonic() - wall
    return result | {"memory_gb": _memory(), "memory_before_gb": base}


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1e9 if sys.platform == "darwin" else 1e6
    )


def main() -> int:
    """Print a table; exit code 1 where a budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splats", type=int, default=1_500_000)
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.splats)))
        return 0
    rows, missed = [], []
    print(f"{'format':16}{'s':>8}{'CPU s':>8}{'read s':>8}{'MB':>9}{'GB':>7}")
    for name in options.formats:
        command = [sys.executable, __file__, "--one", name, "--splats", str(options.splats)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        read = row.get("read_seconds", math.nan)
        print(
            f"{name:16}{row['seconds']:8.2f}{row['cpu_seconds']:8.2f}{read:8.2f}"
            f"{row['megabytes']:9.1f}{row['memory_gb']:7.2f}",
            flush=True,
        )
        if row["seconds"] > BUDGETS.get(name, math.inf) or row["memory_gb"] > MEMORY:
            missed.append(name)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"budgets missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
