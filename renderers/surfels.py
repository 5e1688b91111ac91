"""Z-buffer of surfels, oriented discs on surfaces: which one each pixel shows, and how squarely.

Exact where a disc is larger than a pixel (the ray of the pixel's centre is intersected with the
disc); a disc that slips between the centres still marks the pixel that its own centre falls in.
The answer does not depend on the number of threads: a pixel keeps the smallest of its keys
(depth, side, id), and the smallest of several smallest keys is the same however they were shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from renderers.camera import Camera
from renderers.cpu.pack import morton_order
from renderers.errors import check_shapes
from renderers.kernels import RENDER_LOCK
from renderers.zbuffer import (
    FAR,
    ROUNDING,
    STRETCH,
    TALL,
    WIDE,
    N,
    fill,
    fill_share,
    resolve,
    resolve_share,
)

NEAR = 0.01
"""Nothing nearer than this is drawn, in metres."""
BACK_SLACK = 0.02
"""Share of its depth by which a disc seen from behind yields to discs seen from the front."""
MIN_PARALLEL = 200_000
"""Fewer surfels than this are drawn by the calling thread: waking others would take longer."""
MAX_SHARES = 8
"""Z-buffers filled side by side at most: each thread has its own, and they cost memory."""

f32, u32, u64 = np.float32, np.uint32, np.uint64


@dataclass(frozen=True, eq=False)
class SurfelMap:
    """What a camera sees of a set of surfels, one entry per pixel."""

    ids: Int64[Tensor, "h w"]
    """Row of the surfel in front; -1 where there is none."""
    depth: Float32[Tensor, "h w"]
    """z in the camera frame where the ray meets the surfel, in metres; NaN where there is none."""
    cos: Float32[Tensor, "h w"]
    """Cosine between ray and surfel normal: 1 seen squarely, towards 0 at a grazing angle,
    negative from behind, 0 where there is none."""

    def __post_init__(self) -> None:
        check_shapes(self, ids=("h", "w"), depth=("h", "w"), cos=("h", "w"))


@dataclass(frozen=True, eq=False)
class _Discs:
    """Carrier for the shape check."""

    points: Tensor
    normals: Tensor
    radii: Tensor


class SurfelScene:
    """A copy of surfels, sorted so that whole blocks out of sight are skipped.

    Worth it from about fifty maps on, as preparing takes time. The maps are the same as those of
    :func:`render_surfels`, bit by bit.
    """

    def __init__(
        self,
        points: Float[Tensor, "n 3"],
        normals: Float[Tensor, "n 3"],
        radii: Float[Tensor, " n"],
    ) -> None:
        """Copy and sort surfels; arguments and errors as for :func:`render_surfels`."""
        self._arrays = tuple(array.copy() for array in _plain(points, normals, radii))
        self._blocks = *_pack(*self._arrays), True

    def __len__(self) -> int:
        return len(self._arrays[2])

    def render(self, camera: Camera, *, backs: bool = False) -> SurfelMap:
        """Draw the surfels as they were when the scene was made. See :func:`render_surfels`."""
        return _render(self._arrays, self._blocks, camera, backs)


def render_surfels(
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    radii: Float[Tensor, " n"],
    camera: Camera,
    *,
    backs: bool = False,
) -> SurfelMap:
    """Draw surfels into a z-buffer.

    Depths within 0.1 % of each other tie, and the surfel with the lower row wins. Surfels with
    NaN or infinity in them, or without a positive radius, or beyond FAR, are not drawn.

    Args:
        points: Centres in the world, in metres.
        normals: Unit normals in the world, pointing out of the surface.
        radii: Radii, in metres.
        camera: The view.
        backs: Also draw surfels seen from behind, as blockers: what nobody has seen from this
            side still hides what lies behind it. They yield to fronts within BACK_SLACK.

    Returns:
        Ids, depths and cosines on the camera's pixel grid.

    Raises:
        SceneError: The arrays disagree in length or have another shape.

    Safe to call from several Python threads. Not differentiable.
    """
    unsorted = np.empty((0, 7 * N), f32), np.empty(0, u32), np.empty((0, 4), f32), False
    return _render(_plain(points, normals, radii), unsorted, camera, backs)


def _plain(points: Tensor, normals: Tensor, radii: Tensor) -> tuple[np.ndarray, ...]:
    """The arrays in float32, all numbers of each in a row."""
    check_shapes(_Discs(points, normals, radii), points=("n", 3), normals=("n", 3), radii=("n",))
    return tuple(v.detach().cpu().float().numpy().reshape(-1) for v in (points, normals, radii))


def _pack(points: np.ndarray, normals: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, ...]:
    """Blocks of neighbours, without what can never be drawn.

    Returns:
        Blocks (b, 7 * N): centres, normals and radii, a column's N numbers side by side; the row
        of each surfel in them (b * N); and a ball around each block: centre and radius (b, 4).
        What fills up the last block has no radius.
    """
    table = np.column_stack([points.reshape(-1, 3), normals.reshape(-1, 3), radii])
    rows = np.flatnonzero(np.logical_and.reduce(np.isfinite(table).T) & (radii > 0.0))
    rows = rows[morton_order(torch.from_numpy(table[rows, :3])).numpy()]
    filler = -len(rows) % N
    rows = np.concatenate([rows, rows[:1].repeat(filler)]).astype(u32)
    table = table[rows]
    table[len(rows) - filler :, 6] = 0.0
    columns = np.ascontiguousarray(table.reshape(-1, N, 7).transpose(0, 2, 1))
    centres = columns[:, :3].astype(np.float64)
    middle = 0.5 * (centres.min(2) + centres.max(2))
    reach = np.sqrt(((centres - middle[:, :, None]) ** 2).sum(1)) + columns[:, 6]
    reach = STRETCH * reach.max(1) + ROUNDING * np.abs(middle).max(1)
    balls = np.column_stack([middle, reach])
    balls[reach > FAR] = 0.0, 0.0, 0.0, np.inf  # never skipped
    return columns.reshape(-1, 7 * N), rows, balls.astype(f32)


def _render(
    arrays: tuple[np.ndarray, ...], blocks: tuple[Any, ...], camera: Camera, backs: bool
) -> SurfelMap:
    """Draw plain arrays, or sorted blocks of them: what :func:`_pack` gives, and True."""
    view, lens = _view(camera), _lens(camera)
    shape = (camera.height, camera.width)
    ids, depth, cos = np.empty(shape, np.int64), np.empty(shape, f32), np.empty(shape, f32)
    # Spare pixels below and to the right take what is offered beyond the edges. Rows take an odd
    # number of cache lines, or pixels above each other would be in each other's way.
    room = (camera.height + TALL, 8 * ((camera.width + WIDE + 7) // 8 | 1))
    if len(arrays[2]) < MIN_PARALLEL:
        keys = np.empty((1, *room), u64)
        fill_share(arrays, blocks, view, lens, backs, 0, keys)
        resolve_share(arrays, view, lens, keys, 0, ids, depth, cos)
    else:
        with RENDER_LOCK:
            keys = np.empty((min(numba.get_num_threads(), MAX_SHARES), *room), u64)
            fill(arrays, blocks, view, lens, backs, keys)
            resolve(arrays, view, lens, keys, ids, depth, cos)
    return SurfelMap(torch.from_numpy(ids), torch.from_numpy(depth), torch.from_numpy(cos))


def _view(camera: Camera) -> tuple[np.float32, ...]:
    """Rotation (9), centre of the camera (3), and what rounding took from the centre (3)."""
    pose = camera.cam_from_world.detach().cpu().double().numpy()[:3]
    eye = -np.linalg.solve(pose[:, :3], pose[:, 3])  # exact also for a slightly skewed pose
    return tuple(f32(value) for value in (*pose[:, :3].flat, *eye, *(eye - eye.astype(f32))))


def _lens(camera: Camera) -> tuple[np.float32, ...]:
    """Focal lengths, principal point, inverse focal lengths, size, NEAR, factor on backs."""
    k = camera.px_from_cam.detach().cpu().double().numpy()
    pinhole = (k[0, 0], k[1, 1], k[0, 2], k[1, 2], 1.0 / k[0, 0], 1.0 / k[1, 1])
    lens = (*pinhole, camera.width, camera.height, NEAR, 1.0 + BACK_SLACK)
    return tuple(f32(value) for value in lens)
