"""Turning, scaling and moving a scene: from our axes to those of a file, and back.

A similarity keeps angles, so a splat stays a splat: its rotation and its spherical harmonics turn
with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.sh import sh_basis
from renderers.splats import Splats

Row = tuple[int | float, int | float, int | float]
Axes = tuple[Row, Row, Row]
"""Rows of a rotation."""

Y_UP: Axes = ((1, 0, 0), (0, -1, 0), (0, 0, -1))
"""From OpenCV axes to OpenGL's: x right, y up, z backwards. Its own inverse."""
Z_UP: Axes = ((1, 0, 0), (0, 0, 1), (0, -1, 0))
"""From OpenCV axes to Blender's and ROS's z up: x right, y ahead, z up."""


AS_IT_IS: Axes = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@dataclass(frozen=True)
class Placement:
    """``x_new = scale * (rotation @ x) + shift``."""

    rotation: Axes = AS_IT_IS
    """Without mirroring."""
    scale: float = 1.0
    """Above 0."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """In the units of the new frame."""

    @property
    def matrix(self) -> Float[Tensor, "3 3"]:
        """The rotation, float64."""
        return torch.tensor(self.rotation, dtype=torch.float64)

    def points(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Points in the new frame."""
        moved = self.scale * (points.double() @ self.matrix.T)
        return (moved + torch.tensor(self.shift, dtype=torch.float64)).to(points)

    def splats(self, splats: Splats) -> Splats:
        """Splats in the new frame."""
        if self == Placement():
            return splats
        turned = self.rotation != AS_IT_IS
        sh = splats.sh
        if turned and sh is not None and sh.shape[1]:
            sh = torch.einsum("ij,njc->nic", _turned_sh(self.matrix, sh.shape[1]).to(sh), sh)
        quats = _times(_quat_of(self.matrix), splats.quats) if turned else splats.quats
        return Splats(
            self.points(splats.means), quats, splats.scales * self.scale, splats.opacities,
            splats.colors, sh,
        )  # fmt: skip


def _quat_of(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, " 4"]:
    """Unit quaternion w x y z of a rotation; found from its largest component, so never unstable.

    ``4 q q^T`` has the entries below (Shepperd 1978).
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation.double().tolist()
    outer = torch.tensor(
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ],
        dtype=torch.float64,
    )
    row = outer[outer.diagonal().argmax()]
    return row / torch.linalg.norm(row)


def _times(left: Float[Tensor, " 4"], quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """The rotation ``left`` after each of ``quats``."""
    w, x, y, z = left.tolist()
    matrix = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return quats @ matrix.to(quats).T


def _turned_sh(rotation: Float[Tensor, "3 3"], k: int) -> Float[Tensor, "k k"]:
    """What turns harmonics: the matrix M with ``basis(R d) M c = basis(d) c`` for all d.

    Harmonics of one degree turn into each other, so enough directions determine M exactly.
    """
    index = torch.arange(64, dtype=torch.float64) + 0.5
    z, angle = 1 - index / 32, index * math.pi * (3 - 5**0.5)  # a spiral: directions all around
    radius = (1 - z * z).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
    after, before = sh_basis(directions @ rotation.double().T, k), sh_basis(directions, k)
    return torch.linalg.lstsq(after, before).solution
