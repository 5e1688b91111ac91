"""3D Gaussian splats in physical units: what exists in the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers.errors import SceneError, check_shapes

SH_SIZES = {0: 0, 3: 1, 8: 2, 15: 3}
"""Number of coefficients without the constant term, to spherical harmonics degree."""


@dataclass(frozen=True, eq=False)
class Splats:
    """A set of 3D Gaussians (Kerbl et al. 2023, eq. 4-6), one per row.

    Raises:
        SceneError: The fields disagree in length or have another shape.
    """

    means: Float[Tensor, "n 3"]
    """Centres in the world, in metres."""
    quats: Float[Tensor, "n 4"]
    """Rotation world_from_splat as quaternions w, x, y, z. Need not be unit; never zero."""
    scales: Float[Tensor, "n 3"]
    """Standard deviation along each axis of the splat, in metres."""
    opacities: Float[Tensor, " n"]
    """Opacity at the centre, 0 to 1."""
    colors: Float[Tensor, "n 3"]
    """sRGB seen from every side, 0 to 1: the constant spherical harmonic, as a colour."""
    sh: Float[Tensor, "n k 3"] | None = None
    """Spherical harmonics of degree 1 to 3 (k = 3, 8 or 15), added to ``colors``; may be absent."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, torch.as_tensor(value))
        check_shapes(
            self,
            means=("n", 3),
            quats=("n", 4),
            scales=("n", 3),
            opacities=("n",),
            colors=("n", 3),
            **({} if self.sh is None else {"sh": ("n", "k", 3)}),
        )
        if self.sh is not None and self.sh.shape[1] not in SH_SIZES:
            raise SceneError(
                f"{self.sh.shape[1]} spherical harmonics coefficients per splat",
                why="degrees 1, 2 and 3 have 3, 8 and 15 (the constant term is `colors`)",
                fix="drop the constant term, or pad with zeros",
            )

    def __len__(self) -> int:
        return self.means.shape[0]

    @classmethod
    def empty(cls) -> Splats:
        """No splats at all: a valid scene that shows only the background."""
        shapes = ((0, 3), (0, 4), (0, 3), (0,), (0, 3))
        return cls(*(torch.zeros(shape) for shape in shapes))

    def __getitem__(self, rows: Tensor | slice) -> Splats:
        """Rows by mask, index or slice."""
        return self._map(lambda values: values[rows])

    def to(self, where: torch.device | torch.dtype) -> Splats:
        """The same splats on another device or in another dtype, as :meth:`torch.Tensor.to`."""
        return self._map(lambda values: values.to(where))

    def detach(self) -> Splats:
        """The same splats without gradient history."""
        return self._map(Tensor.detach)

    @property
    def requires_grad(self) -> bool:
        """Whether any field takes part in automatic differentiation."""
        values = (getattr(self, field.name) for field in fields(self))
        return any(v is not None and v.requires_grad for v in values)

    @property
    def drawable(self) -> Bool[Tensor, " n"]:
        """Rows that renderers draw: finite in every field, and with a rotation."""
        values = (getattr(self, field.name) for field in fields(self))
        finite = [v[..., None].isfinite().flatten(1).all(1) for v in values if v is not None]
        return torch.stack(finite).all(0) & (self.quats != 0).any(1)

    @property
    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Address and number of writes of each field's tensor.

        Changes when an optimiser writes into the tensors of otherwise immutable splats.
        """
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(
            (value.data_ptr(), 0 if value.is_inference() else value._version)
            for value in values
            if value is not None
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> Splats:
        return Splats(
            change(self.means),
            change(self.quats),
            change(self.scales),
            change(self.opacities),
            change(self.colors),
            None if self.sh is None else change(self.sh),
        )


_parts: WeakKeyDictionary[Splats, tuple[ReferenceType[Splats], ...]] = WeakKeyDictionary()


def join(parts: Sequence[Splats]) -> Splats:
    """All splats of ``parts``, in order. Missing spherical harmonics count as zero."""
    parts = [part for part in parts if len(part)] or [Splats.empty()]
    k = max(0 if part.sh is None else part.sh.shape[1] for part in parts)
    sh = torch.cat([_padded_sh(part, k) for part in parts]) if k else None
    joined = Splats(
        torch.cat([part.means for part in parts]),
        torch.cat([part.quats for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat([part.opacities for part in parts]),
        torch.cat([part.colors for part in parts]),
        sh,
    )
    if all(k == (0 if part.sh is None else part.sh.shape[1]) for part in parts):
        _parts[joined] = tuple(ref(part) for part in parts)
    return joined


def parts_of(splats: Splats) -> tuple[Splats, ...]:
    """The splats that ``splats`` were joined from, where all still live and none has changed.

    Empty where they were not, or where that is not known any more.
    """
    parts = [part() for part in _parts.get(splats, ())]
    alive = [part for part in parts if part is not None]
    untouched = not any(writes for part in (splats, *alive) for _, writes in part.stamp)
    return tuple(alive) if len(alive) == len(parts) and untouched else ()


def _padded_sh(part: Splats, k: int) -> Tensor:
    padded = part.colors.new_zeros(len(part), k, 3)
    if part.sh is not None:
        padded[:, : part.sh.shape[1]] = part.sh
    return padded
