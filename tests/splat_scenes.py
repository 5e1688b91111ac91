"""Scenes for tests of renderers: single splats by hand, random clouds, a photographed room."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from renderers import Camera, Splats


def splat(
    depth: float,
    opacity: float,
    color: Sequence[float],
    *,
    at: tuple[float, float] = (0.0, 0.0),
    scale: float | Sequence[float] = 0.1,
    quat: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
) -> Splats:
    """One float64 splat at ``at`` (x, y) and ``depth``, in metres before the world's camera."""
    scales = [scale] * 3 if isinstance(scale, (int, float)) else list(scale)
    rows = ([*at, depth], quat, scales, opacity, color)
    return Splats(*(torch.tensor([row], dtype=torch.float64) for row in rows))


def small_camera(width: int = 9, height: int = 9, focal: float = 10.0) -> Camera:
    """A splat straight ahead falls on the centre of the middle pixel."""
    lens = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
    return Camera(torch.tensor(lens, dtype=torch.float64), torch.eye(4).double(), width, height)


def cloud(n: int, seed: int = 0, degree: int = 0) -> Splats:
    """Random float32 splats of all shapes, 1 to 5 m ahead, some beside and some behind others."""
    rng = torch.Generator().manual_seed(seed)
    uniform = torch.rand(n, 3, generator=rng)
    means = (uniform * 2 - 1) * torch.tensor([2.0, 1.4, 2.0]) + torch.tensor([0.0, 0.0, 3.0])
    quats = torch.randn(n, 4, generator=rng)
    scales = torch.exp(0.8 * torch.randn(n, 3, generator=rng) - 3)
    opacities = 0.01 + 0.98 * torch.rand(n, generator=rng)
    colors = torch.rand(n, 3, generator=rng)
    k = (degree + 1) ** 2 - 1
    sh = 0.2 * torch.randn(n, k, 3, generator=rng) if k else None
    return Splats(means, quats, scales, opacities, colors, sh)


def room(n: int, seed: int = 0) -> Splats:
    """A room as a depth camera sees it: one small disc per pixel, from one turning viewpoint.

    About as many splats per pixel, as small and as opaque as a lifted photograph has.
    """
    rng = torch.Generator().manual_seed(seed)
    columns = max(1, round(math.sqrt(n * 2)))
    index = torch.arange(n)
    angle = (index % columns) / columns * 2 * math.pi
    slope = (index // columns / max(1, n // columns) - 0.5) * 1.2
    rays = torch.stack([angle.sin(), slope, angle.cos()], dim=-1)
    half = torch.tensor([3.0, 1.5, 3.0])
    distance = (half / rays.abs().clamp_min(1e-9)).min(dim=1)
    means = rays * distance.values[:, None]
    turn = math.sqrt(0.5)  # from a disc that faces z to one that faces x, y or z
    facing = torch.tensor([[turn, 0, turn, 0], [turn, turn, 0, 0], [1.0, 0, 0, 0]])
    size = 0.7 * distance.values * 2 * math.pi / columns
    spread = torch.exp(0.15 * torch.randn(n, generator=rng))
    scales = (size * spread)[:, None] * torch.tensor([1.0, 1.0, 0.1])
    colors = 0.5 + 0.5 * torch.sin(7 * means) * torch.cos(5 * means.roll(1, dims=1))
    opacities = 0.6 + 0.39 * torch.rand(n, generator=rng)
    return Splats(means, facing[distance.indices], scales, opacities, colors)


def transformed(splats: Splats, rotation_quat: torch.Tensor, shift: torch.Tensor) -> Splats:
    """The same splats in a world moved by ``x -> R x + shift``; R as a unit quaternion."""
    w, x, y, z = rotation_quat.tolist()
    left = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]]).to(
        splats.quats
    )
    rotation = rotation_of(rotation_quat).to(splats.means)
    return Splats(
        splats.means @ rotation.T + shift.to(splats.means),
        splats.quats @ left.T,
        splats.scales,
        splats.opacities,
        splats.colors,
        splats.sh,
    )


def rotation_of(quat: torch.Tensor) -> torch.Tensor:
    """Rotation matrix of a unit quaternion, by Rodrigues' formula: not the renderers' own code."""
    w, axis = quat[0].double(), quat[1:].double()
    cross = torch.zeros(3, 3, dtype=torch.float64)
    cross[0, 1], cross[0, 2], cross[1, 2] = -axis[2], axis[1], -axis[0]
    cross = cross - cross.T
    return torch.eye(3, dtype=torch.float64) + 2 * w * cross + 2 * cross @ cross
