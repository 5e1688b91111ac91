"""The CPU renderer: packs, projects, sorts, bins and draws, one picture at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
from jaxtyping import Int32, UInt32

from renderers.base import (
    ALPHA_CUT,
    ALPHA_MAX,
    DEPTH_ALPHA_MIN,
    EPS2D,
    FOV_GUARD,
    NEAR,
    TRANSMITTANCE_STOP,
    Render,
)
from renderers.camera import Camera
from renderers.cpu.bin import depth_keys, depth_order, tile_lists
from renderers.cpu.pack import PackedScene, packed
from renderers.cpu.project import BOX, RECORD, N, project
from renderers.cpu.raster import TILE, rasterise
from renderers.errors import SceneError
from renderers.kernels import RENDER_LOCK
from renderers.sh import view_colors
from renderers.splats import Splats

f32 = np.float32
LOG_CUT = f32(math.log2(ALPHA_CUT))
BOX_LOG_CUT = f32(math.log2(ALPHA_CUT) - 0.01)
"""For the boxes of splats: a little lower, so that rounding loses no pixel above the cut."""


class CpuRenderer:
    """Renders on all cores that numba may use. The same bytes for any number of them.

    Safe to use from several Python threads: pictures are then made one after the other. The splats
    of a picture are prepared once and reused for as long as that ``Splats`` object lives.
    """

    def __init__(self) -> None:
        self._records = np.empty(0, RECORD)
        self._boxes = np.empty(0, BOX)

    def render(
        self, splats: Splats, camera: Camera, background: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> Render:
        """See :class:`renderers.base.Renderer`. Returns float32 tensors on the CPU.

        Raises:
            SceneError: A gradient is asked for: an input requires one and grad mode is on.
        """
        _refuse_gradients(splats, camera)
        with RENDER_LOCK, torch.no_grad():
            return self._draw(splats, camera, background)

    def _draw(self, splats: Splats, camera: Camera, background: Sequence[float]) -> Render:
        threads = numba.get_num_threads()
        counts = self._project(packed(splats), camera, threads)
        keys, slots = self._visible(counts)
        if splats.sh is not None:
            keys, slots = self._paint(splats, camera, keys, slots)
        order = depth_order(keys, slots, threads)
        tiles_x, tiles_y = -(-camera.width // TILE), -(-camera.height // TILE)
        starts, members = tile_lists(
            self._records, self._boxes, order, tiles_x, tiles_y, TILE, BOX_LOG_CUT, threads
        )
        red, green, blue = background
        rgb = np.empty((camera.height, camera.width, 3), f32)
        alpha, depth = np.empty(rgb.shape[:2], f32), np.empty(rgb.shape[:2], f32)
        rasterise(
            self._records,
            starts,
            members,
            tiles_x,
            threads,
            (LOG_CUT, f32(ALPHA_MAX), f32(TRANSMITTANCE_STOP), f32(DEPTH_ALPHA_MIN)),
            np.array([red, green, blue], f32),
            rgb,
            alpha,
            depth,
        )
        return Render(torch.from_numpy(rgb), torch.from_numpy(alpha), torch.from_numpy(depth))

    def _project(self, scene: PackedScene, camera: Camera, threads: int) -> np.ndarray:
        """Fill the records; returns how many of each block are visible."""
        blocks = len(scene.blocks)
        if len(self._records) < blocks * N:
            self._records, self._boxes = np.empty(blocks * N, RECORD), np.empty(blocks * N, BOX)
        pose, intrinsics = camera.cam_from_world.double().cpu(), camera.px_from_cam.double().cpu()
        rotation = pose[:3, :3]
        eye = -torch.linalg.solve(rotation, pose[:3, 3])  # exact also for a slightly skewed pose
        fx, fy = intrinsics[0, 0].item(), intrinsics[1, 1].item()
        cx, cy = intrinsics[0, 2].item(), intrinsics[1, 2].item()
        guard_x, guard_y = (
            FOV_GUARD * 0.5 * size / focal
            for size, focal in ((camera.width, fx), (camera.height, fy))
        )
        lens = (fx, fy, cx, cy, camera.width, camera.height, guard_x, guard_y)
        counts = np.zeros(blocks, np.int64)
        project(
            scene.blocks,
            rotation.float().contiguous().numpy(),
            eye.float().numpy(),
            tuple(f32(value) for value in lens),
            (f32(NEAR), f32(EPS2D), BOX_LOG_CUT),
            TILE,
            threads,
            self._records,
            self._boxes,
            counts,
        )
        return counts

    def _visible(
        self, counts: np.ndarray
    ) -> tuple[UInt32[np.ndarray, " m"], Int32[np.ndarray, " m"]]:
        """Sort keys and places of the visible records, by row."""
        total = int(counts.sum())
        keys, slots = np.empty(total, np.uint32), np.empty(total, np.int32)
        depth_keys(self._records, counts, np.cumsum(counts) - counts, N, keys, slots)
        return keys, slots

    def _paint(
        self,
        splats: Splats,
        camera: Camera,
        keys: UInt32[np.ndarray, " m"],
        slots: Int32[np.ndarray, " m"],
    ) -> tuple[UInt32[np.ndarray, " k"], Int32[np.ndarray, " k"]]:
        """Write the colours that this camera sees; drops splats where they overflow."""
        rows = packed(splats).rows[torch.from_numpy(self._records["row"][slots].astype(np.int64))]
        colors = view_colors(splats[rows.to(splats.means.device)], camera).float().cpu().numpy()
        good = np.isfinite(colors).all(1)
        keys, slots = keys[good], slots[good]
        for channel, name in enumerate(("red", "green", "blue")):
            self._records[name][slots] = colors[good, channel]
        return keys, slots


def _refuse_gradients(splats: Splats, camera: Camera) -> None:
    inputs = (camera.cam_from_world, camera.px_from_cam)
    wanted = splats.requires_grad or any(value.requires_grad for value in inputs)
    if torch.is_grad_enabled() and wanted:
        raise SceneError(
            "the cpu renderer cannot differentiate",
            why="the splats or the camera require gradients, and it only draws",
            fix="use renderer 'reference' or 'gsplat', or render under torch.no_grad()",
        )
