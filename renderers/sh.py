"""Real spherical harmonics of degree 1 to 3: a splat's colour by the side it is seen from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.camera import Camera
from renderers.splats import Splats

SH_C0 = 0.28209479177387814
"""The constant harmonic: files store ``(color - 0.5) / SH_C0`` where we store the colour."""


def sh_basis(directions: Float[Tensor, "n 3"], k: int) -> Float[Tensor, "n k"]:
    """The ``k`` basis functions after the constant one, in the order and signs of 3DGS files.

    Args:
        directions: Unit vectors from the camera to the splat.
        k: 3, 8 or 15 (degree 1, 2 or 3).
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if k > 3:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if k > 8:
        basis += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, dim=-1)


def view_colors(splats: Splats, camera: Camera) -> Float[Tensor, "n 3"]:
    """Colour of each splat as this camera sees it, not below 0 (as in Kerbl et al. 2023)."""
    if splats.sh is None or splats.sh.shape[1] == 0:
        return splats.colors
    offsets = splats.means - camera.center.to(splats.means)
    directions = offsets / torch.linalg.norm(offsets, dim=-1, keepdim=True).clamp_min(1e-12)
    basis = sh_basis(directions, splats.sh.shape[1])
    return (splats.colors + (basis[..., None] * splats.sh).sum(1)).clamp_min(0.0)
