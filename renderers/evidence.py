"""What a picture of surfels says about the views that have seen them: pixels and votes.

A pixel speaks for every view that has observed the surfel it shows, with weight cos / (1 + z):
squarely seen and near surfaces count most (VMem, arXiv 2506.18903). Pixels without a surfel, or
that show a back, say nothing. Pixels are counted per surfel first: many pixels show one surfel.

All sums are made by one thread, pixels row by row and surfels in rising order: same bits always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from renderers.errors import SceneError, check_shapes
from renderers.kernels import kernel
from renderers.surfels import SurfelMap

_ONE = np.float32(1.0)


@dataclass(frozen=True, eq=False)
class VisibleSurfels:
    """The surfels that some pictures show, each once."""

    rows: Int64[Tensor, " m"]
    """Row of each, rising."""
    pixels: Int64[Tensor, " m"]
    """How many pixels show it."""
    weights: Float64[Tensor, " m"]
    """Sum of cos / (1 + z) over these pixels."""

    def __post_init__(self) -> None:
        check_shapes(self, rows=("m",), pixels=("m",), weights=("m",))


@dataclass(frozen=True, eq=False)
class Sightings:
    """Which views have observed which surfels: the views of one surfel after another's.

    Raises:
        SceneError: The offsets do not rise from 0 to the number of entries, or a view is not one
            of ``views``.
    """

    indptr: Int64[Tensor, " n1"]
    """Where the views of each surfel begin in ``view_ids``, and at last where they all end."""
    view_ids: Int64[Tensor, " k"]
    """Views, each once per surfel."""
    views: int
    """Number of views: their ids are 0 to views - 1."""

    def __post_init__(self) -> None:
        check_shapes(self, indptr=("n1",), view_ids=("k",))
        ends = self.indptr
        if len(ends) == 0 or ends[0] != 0 or ends[-1] != len(self.view_ids):
            raise _bad_sightings(f"the offsets do not lead from 0 to {len(self.view_ids)}")
        if (ends[1:] < ends[:-1]).any():
            raise _bad_sightings("the offsets fall somewhere")
        if ((self.view_ids < 0) | (self.view_ids >= self.views)).any():
            raise _bad_sightings(f"a view id is not between 0 and {self.views - 1}")

    def __len__(self) -> int:
        """How many surfels there are."""
        return len(self.indptr) - 1

    @classmethod
    def from_mask(cls, observed: Bool[Tensor, "n v"]) -> Sightings:
        """The same knowledge from a table: whether surfel ``n`` was observed by view ``v``."""
        ends = torch.nn.functional.pad(observed.sum(1).cumsum(0), (1, 0))
        return cls(ends.cpu(), observed.nonzero()[:, 1].cpu(), observed.shape[1])


@dataclass(frozen=True, eq=False)
class ViewEvidence:
    """What a picture says about each view."""

    pixels: Int64[Tensor, " v"]
    """Pixels whose surfel the view has observed."""
    votes: Float64[Tensor, " v"]
    """Sum of cos / (1 + z) over these pixels."""
    observed: Bool[Tensor, "v h w"] | None
    """Which pixels these are, where asked for."""

    def __post_init__(self) -> None:
        check_shapes(self, pixels=("v",), votes=("v",))


def count_evidence(
    maps: Sequence[SurfelMap],
    surfels: int,
    needed: Sequence[Bool[Tensor, "_ _"] | None] | None = None,
) -> VisibleSurfels:
    """Count the pixels that show the front of each surfel, over one or more pictures.

    Args:
        maps: Pictures of the same surfels.
        surfels: How many surfels there are.
        needed: For each picture a mask (h, w) of the pixels that count, or None for all.

    Raises:
        SceneError: A picture shows a surfel beyond ``surfels``, or masks do not fit the pictures.
    """
    masks = [None] * len(maps) if needed is None else list(needed)
    if len(masks) != len(maps):
        raise _bad_masks(f"there are {len(masks)} masks for {len(maps)} pictures")
    places = np.zeros(surfels, np.int32)  # of each surfel in the tables, from 1; 0: not seen yet
    room = min(sum(seen.ids.numel() for seen in maps), surfels)
    pixels, weights = np.zeros(room, np.int64), np.zeros(room)
    found = 0
    for seen, mask in zip(maps, masks, strict=True):
        if mask is not None and mask.shape != seen.ids.shape:
            raise _bad_masks(f"a mask {tuple(mask.shape)} for a picture {tuple(seen.ids.shape)}")
        ids, depth, cos = _plain(seen)
        if len(ids) and ids.max() >= surfels:
            raise _foreign_surfel(int(ids.max()), surfels)
        counts = np.ones(len(ids), np.bool_) if mask is None else _flat(mask)
        found = _count(ids, depth, cos, counts, found, places, pixels, weights)
    rows = np.flatnonzero(places > 0)  # bools: four times as fast
    order = places[rows] - 1
    return VisibleSurfels(
        torch.from_numpy(rows), torch.from_numpy(pixels[order]), torch.from_numpy(weights[order])
    )


def view_evidence(
    seen: SurfelMap, sightings: Sightings, *, per_pixel: bool = False
) -> ViewEvidence:
    """What a picture says about every view.

    Args:
        seen: A picture of the surfels.
        sightings: Which views have observed them.
        per_pixel: Also tell which pixels speak for which view: views * h * w bytes.

    Raises:
        SceneError: The picture shows a surfel that ``sightings`` does not know.
    """
    visible = count_evidence([seen], len(sightings))
    pixels, votes = np.zeros(sightings.views, np.int64), np.zeros(sightings.views)
    links = sightings.indptr.cpu().numpy(), sightings.view_ids.cpu().numpy()
    _add_up(
        *(getattr(visible, name).numpy() for name in ("rows", "pixels", "weights")),
        *links,
        pixels,
        votes,
    )
    observed = None
    if per_pixel:
        ids, _, cos = _plain(seen)
        table = np.zeros((sightings.views, len(ids)), np.bool_)
        _spread(ids, cos, *links, table)
        observed = torch.from_numpy(table.reshape(sightings.views, *seen.ids.shape))
    return ViewEvidence(torch.from_numpy(pixels), torch.from_numpy(votes), observed)


def _plain(seen: SurfelMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _flat(seen.ids), _flat(seen.depth), _flat(seen.cos)


def _flat(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().reshape(-1)


@kernel()
def _count(ids, depth, cos, counts, found, places, pixels, weights):
    """Add the pixels of a picture to the tables of the surfels found; return how many those are."""
    for pixel in range(ids.shape[0]):
        if ids[pixel] < 0 or not cos[pixel] > 0.0 or not counts[pixel]:
            continue
        row = np.uint64(ids[pixel])
        if places[row] == 0:
            found += 1
            places[row] = found
        place = np.uint64(places[row] - 1)
        pixels[place] += 1
        weights[place] += np.float64(cos[pixel]) / np.float64(_ONE + depth[pixel])
    return found


@kernel()
def _add_up(rows, surfel_pixels, surfel_weights, indptr, view_ids, pixels, votes):
    for m in range(rows.shape[0]):
        for link in range(indptr[rows[m]], indptr[rows[m] + 1]):
            view = np.uint64(view_ids[link])
            pixels[view] += surfel_pixels[m]
            votes[view] += surfel_weights[m]


@kernel()
def _spread(ids, cos, indptr, view_ids, table):
    for pixel in range(ids.shape[0]):
        if ids[pixel] >= 0 and cos[pixel] > 0.0:
            for link in range(indptr[ids[pixel]], indptr[ids[pixel] + 1]):
                table[view_ids[link], pixel] = True


def _bad_sightings(why: str) -> SceneError:
    return SceneError(
        "these sightings make no sense",
        why=why,
        fix="give one offset per surfel and one more, none falling, and ids of existing views",
    )


def _bad_masks(why: str) -> SceneError:
    return SceneError(
        "the masks of needed pixels do not fit the pictures",
        why=why,
        fix="pass one bool mask (height, width) per picture, or None",
    )


def _foreign_surfel(row: int, surfels: int) -> SceneError:
    return SceneError(
        "a picture shows a surfel that is not there",
        why=f"it shows row {row} of {surfels} surfels",
        fix="draw the picture from the surfels whose number is passed",
    )
