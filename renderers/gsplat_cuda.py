"""gsplat's CUDA rasteriser behind our contract. Importing this module loads no kernel.

gsplat decides what a pixel shows, by the constants of :mod:`renderers.base`, which are its own.
Here is what it leaves to its caller: rows that must not reach it, sizes that leave float32, the
background, and what is in front. Two limits are gsplat's: the determinant of a footprint loses its
digits when the footprint is thousands of times longer than wide, and gradients differ in their
last bits from run to run.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from renderers.base import ALPHA_CUT, DEPTH_ALPHA_MIN, EPS2D, NEAR, Details, Render
from renderers.camera import Camera
from renderers.errors import SceneError
from renderers.front import front_of, pair_alphas
from renderers.sh import SH_C0
from renderers.splats import SH_SIZES, Splats

TILE = 16
"""Edge of gsplat's tiles, in pixels."""
POSITION_MAX = 1e15
"""In metres, along each axis. A splat farther out is not drawn: its products leave float32."""
SCALE_REACH = 1e3
"""A splat larger than this many times its distance looks the same at that size (to 1e-6), and
its footprint stays within float32."""
BATCH_ELEMENTS = 2**27
"""Splats plus pixels, over all cameras, drawn at once: 70 views of a million splats."""
PAIRS_AT_ONCE = 2**26
"""Most pairs of a pixel and a splat that details are gathered from at once, about 3 GB."""
EVERY_SPLAT = 2**31 - 1
"""End of the range of splats per tile asked of gsplat: beyond any."""


@dataclass(frozen=True, eq=False)
class _Scene:
    """Splats as the kernels read them."""

    splats: Splats
    """The rows that can be seen, float32, on the renderer's device."""
    rows: Int64[Tensor, " m"]
    """Their rows in the splats given, rising."""
    harmonics: Float[Tensor, "m k 3"] | None
    """All harmonics with the constant one, or None where colours are the same from every side."""
    stamp: tuple[tuple[int, int], ...]
    """State of the splats' memory when they were prepared."""


class GsplatRenderer:
    """Renders on the current CUDA device. Differentiable in every splat field and in the pose.

    Splats that take no part in differentiation are prepared once and stay on the device for as
    long as that ``Splats`` object lives.

    Args:
        device: Where it renders; gsplat's kernels know CUDA devices only.

    Raises:
        SceneError: gsplat's kernels are not there and cannot be compiled.
    """

    def __init__(self, device: torch.device | str = "cuda") -> None:
        _load_kernels()
        self._device = torch.device(device)
        self._scenes: WeakKeyDictionary[Splats, _Scene] = WeakKeyDictionary()

    def render(
        self,
        splats: Splats,
        camera: Camera,
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> Render:
        """See :class:`renderers.base.Renderer`. Returns float32 tensors on the renderer's device.

        Raises:
            SceneError: A gradient of the intrinsics is asked for.
        """
        return self.render_batch(
            splats, [camera], background, antialiased=antialiased, details=details
        )[0]

    def render_batch(
        self,
        splats: Splats,
        cameras: Sequence[Camera],
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> list[Render]:
        """See :class:`renderers.base.Renderer`. Cameras of one size are drawn together.

        Raises:
            SceneError: A gradient of the intrinsics is asked for.
        """
        _refuse_gradients(cameras)
        scene = self._prepared(splats)
        base = torch.tensor(background, dtype=torch.float32, device=self._device)
        pictures: dict[int, Render] = {}
        for places in _groups(cameras, len(scene.rows)):
            drawn = _draw(scene, [cameras[i] for i in places], base, antialiased, details)
            pictures.update(zip(places, drawn, strict=True))
        return [pictures[i] for i in range(len(cameras))]

    def _prepared(self, splats: Splats) -> _Scene:
        if torch.is_grad_enabled() and splats.requires_grad:
            return _prepare(splats, self._device, ())
        stamp = splats.stamp
        scene = self._scenes.get(splats)
        if scene is None or scene.stamp != stamp:
            with torch.inference_mode(False), torch.no_grad():
                scene = self._scenes[splats] = _prepare(splats.detach(), self._device, stamp)
        return scene


def _load_kernels() -> None:
    """Import gsplat's kernels now, so that a machine without them learns it before it draws.

    gsplat compiles them here where its package holds none, once, which takes minutes.
    """
    why = "gsplat found neither compiled kernels nor a CUDA toolkit to compile them"
    cause: Exception | None = None
    try:
        if getattr(importlib.import_module("gsplat.cuda._backend"), "_C", None) is not None:
            return
    except (ImportError, OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0]
        why, cause = f"gsplat's CUDA kernels do not load: {type(error).__name__}: {first}", error
    raise SceneError(
        "renderer 'gsplat' cannot run here",
        why=why,
        fix="install the CUDA toolkit that torch was built with, or use --renderer cpu",
    ) from cause


def _refuse_gradients(cameras: Sequence[Camera]) -> None:
    if torch.is_grad_enabled() and any(camera.px_from_cam.requires_grad for camera in cameras):
        raise SceneError(
            "the intrinsics get no gradient",
            why="this renderer differentiates in the splats and in the camera's pose only",
            fix="detach px_from_cam, or use renderer 'reference'",
        )


def _prepare(splats: Splats, device: torch.device, stamp: tuple[tuple[int, int], ...]) -> _Scene:
    splats = splats.to(device)
    rows = torch.nonzero(_visible(splats.detach()))[:, 0]
    if len(rows) < len(splats):
        splats = splats[rows]
    splats = _single(splats)
    harmonics = None
    if splats.sh is not None and splats.sh.shape[1]:
        harmonics = torch.cat([((splats.colors - 0.5) / SH_C0)[:, None], splats.sh], dim=1)
    return _Scene(splats, rows, harmonics, stamp)


def _visible(splats: Splats) -> Bool[Tensor, " n"]:
    """Rows that some camera can see, judged in float32, where a value too large is infinite."""
    single = _single(splats)
    near = (single.means.abs() <= POSITION_MAX).all(1)
    return single.drawable & near & (splats.opacities >= ALPHA_CUT)


def _single(splats: Splats) -> Splats:
    """The same splats in float32, with quaternions of a length whose square float32 can hold."""
    length = splats.quats.detach().abs().amax(1, keepdim=True)
    quats = splats.quats / length
    return Splats(
        splats.means, quats, splats.scales, splats.opacities, splats.colors, splats.sh
    ).to(torch.float32)


def _groups(cameras: Sequence[Camera], splats: int) -> Iterator[list[int]]:
    """Places of the cameras that are drawn at once: of one size, and not too many."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for place, camera in enumerate(cameras):
        sizes.setdefault((camera.width, camera.height), []).append(place)
    for (width, height), places in sizes.items():
        step = max(1, BATCH_ELEMENTS // (width * height + splats))
        yield from (places[i : i + step] for i in range(0, len(places), step))


def _draw(
    scene: _Scene,
    cameras: Sequence[Camera],
    base: Float[Tensor, " 3"],
    antialiased: bool,
    details: bool,
) -> list[Render]:
    """Pictures of cameras of one size over the colour ``base``."""
    from gsplat import rasterization

    if len(scene.rows) == 0:  # gsplat divides by the number of splats
        return [_nothing(scene, camera, base, details) for camera in cameras]
    splats, width, height = scene.splats, cameras[0].width, cameras[0].height
    poses = torch.stack([camera.cam_from_world.to(splats.means) for camera in cameras])
    lenses = torch.stack([camera.px_from_cam.detach().to(splats.means) for camera in cameras])
    image, alpha, found = rasterization(
        splats.means,
        splats.quats,
        _bounded_scales(splats, cameras),
        splats.opacities,
        _colors(scene, cameras),
        poses,
        lenses,
        width,
        height,
        near_plane=NEAR,
        far_plane=math.inf,
        radius_clip=0.0,
        eps2d=EPS2D,
        packed=True,
        tile_size=TILE,
        render_mode="RGB+D",  # gsplat 1.5 refuses backgrounds when packed: ours goes on below
        rasterize_mode="antialiased" if antialiased else "classic",
    )  # (c, h, w, 4), (c, h, w, 1)
    opacity = alpha[..., 0]
    known = opacity > DEPTH_ALPHA_MIN
    depth = image[..., 3] / torch.where(known, opacity, 1.0)
    depth = torch.where(known, depth, math.nan)
    rgb = image[..., :3] + (1 - opacity)[..., None] * base
    fronts = _details(scene, found, width, height) if details else [None] * len(cameras)
    return [Render(*picture) for picture in zip(rgb, opacity, depth, fronts, strict=True)]


def _nothing(scene: _Scene, camera: Camera, base: Float[Tensor, " 3"], details: bool) -> Render:
    """The background alone; gradients through it are zero."""
    values = (getattr(scene.splats, field.name) for field in fields(scene.splats))
    zero = sum((value.sum() for value in values if value is not None), base.new_zeros(()))
    zero = zero + 0 * camera.cam_from_world.sum().to(base)
    alpha = zero.expand(camera.height, camera.width)
    depth = torch.full_like(alpha, math.nan)
    front = None
    if details:
        front = Details(*(v[0] for v in _no_front(1, camera.width, camera.height, base.device)))
    return Render(base + alpha[..., None], alpha.clone(), depth, front)


def _bounded_scales(splats: Splats, cameras: Sequence[Camera]) -> Float[Tensor, "n 3"]:
    """Scales that look the same from every camera and whose footprints stay within float32."""
    with torch.no_grad():
        centers = torch.stack([camera.center.to(splats.means) for camera in cameras])
        middle = centers.mean(0)
        spread = torch.linalg.norm(centers - middle, dim=1).max()
        distance = torch.linalg.norm(splats.means - middle, dim=1) + spread  # of the farthest
        limit = SCALE_REACH * distance[:, None]
    return torch.clamp(splats.scales, -limit, limit)


def _colors(scene: _Scene, cameras: Sequence[Camera]) -> Float[Tensor, "*views n 3"]:
    """Colours that every camera sees, (n, 3), or that each one sees, (c, n, 3), at least 0."""
    from gsplat import spherical_harmonics

    if scene.harmonics is None:
        return scene.splats.colors
    degree = SH_SIZES[scene.harmonics.shape[1] - 1]
    views = []
    for camera in cameras:
        offsets = scene.splats.means - camera.center.to(scene.splats.means)
        # at the camera itself there is no direction; nothing so near is drawn
        apart = offsets.detach().square().sum(1) > 1e-24
        views.append(spherical_harmonics(degree, offsets, scene.harmonics, apart) + 0.5)
    return torch.stack(views).clamp_min(0.0)


@torch.no_grad()
def _details(scene: _Scene, found: dict[str, Any], width: int, height: int) -> list[Details]:
    """What is in front in each picture.

    Args:
        scene: What was drawn.
        found: gsplat's account of it: the visible splats of all pictures, one behind the other,
            and which of them touch each tile, nearest first.
        width: Width of the pictures, in pixels.
        height: Height of the pictures, in pixels.
    """
    offsets, members = found["isect_offsets"], found["flatten_ids"]  # (c, y, x), (i,)
    starts = [*offsets.flatten().tolist(), len(members)]
    tiles = offsets.shape[1] * offsets.shape[2]
    fronts = _no_front(len(offsets), width, height, scene.rows.device)
    depths, ids, weights = (value.flatten(1) for value in fronts)  # views: written below
    for picture in range(len(offsets)):
        edges = starts[picture * tiles : (picture + 1) * tiles + 1]
        for low, high in _shares(edges):
            pixels, seen = _pairs(found, picture, low, high, width, height)
            alphas = pair_alphas(
                pixels, width, *(found[name][seen] for name in ("means2d", "conics", "opacities"))
            )
            front = front_of(pixels, alphas, found["depths"][seen])
            shown, top = front.pixels, front.top_pairs
            depths[picture, shown] = front.median_depth
            weights[picture, shown] = front.top_weights
            row = scene.rows[found["gaussian_ids"][seen[top]]]
            ids[picture, shown] = torch.where(top >= 0, row, -1)
    return [Details(*values) for values in zip(*fronts, strict=True)]


def _shares(edges: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a picture's list of tile members, at tiles, so that a share has few enough pairs.

    Args:
        edges: Where each tile's members begin in the list, and where the last ones end.
    """
    low = edges[0]
    for end, following in zip(edges[1:], [*edges[2:], math.inf], strict=True):
        if end > low and (following - low) * TILE * TILE > PAIRS_AT_ONCE:
            yield low, end
            low = end


def _pairs(
    found: dict[str, Any], picture: int, low: int, high: int, width: int, height: int
) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
    """Pixels and visible splats that make up part of a picture.

    Args:
        found: gsplat's account of what was drawn.
        picture: Which picture.
        low: First place in the list of tile members; a tile begins there.
        high: End of the places; a tile ends there.
        width: Width of the picture, in pixels.
        height: Height of the picture, in pixels.

    Returns:
        Pixels, rising, and for each one its splats, nearest first.
    """
    from gsplat import rasterize_to_indices_in_range

    offsets = found["isect_offsets"][picture].clamp(low, high) - low  # other tiles become empty
    seen, pixels, _ = rasterize_to_indices_in_range(
        0,
        EVERY_SPLAT,
        torch.ones(height, width, device=offsets.device),
        found["means2d"],
        found["conics"],
        found["opacities"],
        width,
        height,
        TILE,
        offsets,
        found["flatten_ids"][low:high],
    )
    return pixels, seen


def _no_front(
    pictures: int, width: int, height: int, device: torch.device
) -> tuple[Float[Tensor, "c h w"], Int64[Tensor, "c h w"], Float[Tensor, "c h w"]]:
    """Median depth, top ids and top weights of pictures in which nothing is."""
    shape = (pictures, height, width)
    return (
        torch.full(shape, math.nan, device=device),
        torch.full(shape, -1, device=device),
        torch.zeros(shape, device=device),
    )
