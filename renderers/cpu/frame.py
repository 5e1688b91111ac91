"""One picture under way: what shows of a scene, nearest first, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
from jaxtyping import Int32, Int64

from renderers.base import (
    ALPHA_CUT,
    ALPHA_MAX,
    DEPTH_ALPHA_MIN,
    EPS2D,
    FOV_GUARD,
    MEDIAN_ALPHA,
    NEAR,
    TRANSMITTANCE_STOP,
    Details,
    Render,
)
from renderers.camera import Camera
from renderers.cpu.bin import find_shown, nearest_first, tile_lists
from renderers.cpu.harmonics import paint
from renderers.cpu.pack import PackedScene
from renderers.cpu.project import BOX, RECORD, N, project, visible_blocks
from renderers.cpu.raster import TILE, rasterise

f32 = np.float32
LOG_CUT = f32(math.log2(ALPHA_CUT))
BOX_LOG_CUT = f32(math.log2(ALPHA_CUT) - 0.01)
"""For the boxes of splats: a little lower, so that rounding loses no pixel above the cut."""
LIMITS = (
    LOG_CUT,
    f32(ALPHA_MAX),
    f32(TRANSMITTANCE_STOP),
    f32(DEPTH_ALPHA_MIN),
    f32(1.0 - MEDIAN_ALPHA),
)
"""As raster.rasterise takes them."""


class Scratch:
    """Memory for records that one picture after the other may use."""

    def __init__(self) -> None:
        self._records = np.empty(0, RECORD)
        self._boxes = np.empty(0, BOX)

    def take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Room for ``count`` records and boxes. What was taken before is lost."""
        if len(self._records) < count:
            self._records, self._boxes = np.empty(count, RECORD), np.empty(count, BOX)
        return self._records[:count], self._boxes[:count]


class Frame:
    """The visible splats of a scene as one camera sees them. Make and use it under RENDER_LOCK."""

    def __init__(
        self,
        scene: PackedScene,
        camera: Camera,
        antialiased: bool,
        scratch: Scratch,
        *,
        numbered: bool = False,
    ) -> None:
        self.camera = camera
        self.threads = numba.get_num_threads()
        pose, intrinsics = camera.cam_from_world.double().cpu(), camera.px_from_cam.double().cpu()
        self.rotation = pose[:3, :3].numpy()
        # exact also for a slightly skewed pose
        self.eye = -torch.linalg.solve(pose[:3, :3], pose[:3, 3]).numpy()
        fx, fy = intrinsics[0, 0].item(), intrinsics[1, 1].item()
        cx, cy = intrinsics[0, 2].item(), intrinsics[1, 2].item()
        guard_x = FOV_GUARD * 0.5 * camera.width / fx
        guard_y = FOV_GUARD * 0.5 * camera.height / fy
        self.lens = (fx, fy, cx, cy, camera.width, camera.height, guard_x, guard_y)
        """project.project's ``lens``."""
        counts, boxes = self._project(scene, antialiased, scratch)
        self.shown = self._shown(counts)
        """Records that show, rising."""
        self.order = nearest_first(self.records, self.shown, self.threads)
        """The same, nearest first; ties break by row."""
        self.tiles_x = -(-camera.width // TILE)
        self.lists = tile_lists(
            self.records,
            boxes,
            self.order,
            self.tiles_x,
            -(-camera.height // TILE),
            TILE,
            BOX_LOG_CUT,
            self.threads,
            numbered,
        )

    def picture(
        self, background: Sequence[float], details: bool, traces: np.ndarray | None = None
    ) -> Render:
        """Draw what shows over ``background`` (sRGB). See raster.rasterise for ``traces``."""
        red, green, blue = background
        rgb = np.empty((self.camera.height, self.camera.width, 3), f32)
        shape = rgb.shape[:2]
        alpha, depth = np.empty(shape, f32), np.empty(shape, f32)
        found = None
        if details:
            found = np.empty(shape, f32), np.empty(shape, np.int64), np.empty(shape, f32)
        rasterise(
            self.records,
            self.lists.starts,
            self.lists.members,
            self.tiles_x,
            self.threads,
            LIMITS,
            np.array([red, green, blue], f32),
            rgb,
            alpha,
            depth,
            traces,
            found,
        )
        rgb, alpha, depth = map(torch.from_numpy, (rgb, alpha, depth))
        front = None if found is None else Details(*map(torch.from_numpy, found))
        return Render(rgb, alpha, depth, front)

    def _project(
        self, scene: PackedScene, antialiased: bool, scratch: Scratch
    ) -> tuple[Int64[np.ndarray, " v"], np.ndarray]:
        """Fill ``records``; returns how many of each visible block show, and their boxes."""
        rotation, eye = self.rotation.astype(f32), self.eye.astype(f32)
        lens = tuple(f32(value) for value in self.lens)
        shown = [
            visible_blocks(segment.bounds, self.rotation, self.eye, self.lens, NEAR)
            for segment in scene.segments
        ]
        ends = np.cumsum([0, *map(len, shown)])
        self.records, boxes = scratch.take(int(ends[-1]) * N)
        counts = np.zeros(ends[-1], np.int64)
        for segment, visible, begin in zip(scene.segments, shown, ends, strict=False):
            if not len(visible):
                continue
            some = slice(begin * N, (begin + len(visible)) * N)
            own = counts[begin : begin + len(visible)]
            project(
                segment.blocks,
                visible,
                segment.rows,
                segment.first,
                rotation,
                eye,
                lens,
                (f32(NEAR), f32(EPS2D), BOX_LOG_CUT),
                TILE,
                antialiased,
                self.threads,
                self.records[some],
                boxes[some],
                own,
            )
            if segment.sh.shape[1]:
                paint(self.records[some], own, N, segment.sh, segment.first, rotation, lens)
        return counts, boxes

    def _shown(self, counts: Int64[np.ndarray, " v"]) -> Int32[np.ndarray, " m"]:
        shown = np.empty(counts.sum(), np.int32)
        find_shown(counts, np.cumsum(counts) - counts, N, shown)
        return shown
