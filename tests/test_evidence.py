"""What pictures of surfels say about past views: by hand, against plain numpy, by law."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rooms import TARGETS, remember, strolls

from renderers import SceneError
from renderers.evidence import Sightings, VisibleSurfels, count_evidence, view_evidence
from renderers.surfels import SurfelMap, render_surfels
from spatial_memory.retrieve import gather

NAN = float("nan")
SURFELS, VIEWS = 40, 6


def picture(ids: list[list[int]], depth: list[list[float]], cos: list[list[float]]) -> SurfelMap:
    return SurfelMap(torch.tensor(ids), torch.tensor(depth).float(), torch.tensor(cos).float())


def random_picture(rng: np.random.Generator, height: int = 9, width: int = 14) -> SurfelMap:
    ids = rng.integers(-1, SURFELS, (height, width))
    depth = np.where(ids < 0, NAN, rng.uniform(0.1, 20.0, ids.shape))
    cos = np.where(ids < 0, 0.0, rng.uniform(-0.3, 1.0, ids.shape))
    return SurfelMap(
        torch.from_numpy(ids), torch.from_numpy(depth).float(), torch.from_numpy(cos).float()
    )


def random_mask(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.random((SURFELS, VIEWS)) < 0.3)


# Surfel 2 twice, surfel 0 once; a back of surfel 1, a hole.
SMALL = picture(
    [[2, 0, 2], [1, -1, 2]],
    [[1.0, 3.0, 3.0], [1.0, NAN, 0.0]],
    [[1.0, 0.5, 0.25], [-0.5, 0.0, 0.75]],
)
SEEN_BY = torch.tensor([[True, False, True], [True, True, True], [False, False, True]])


# ---------------------------------------------------------------- by hand


def test_counts_by_hand() -> None:
    """Surfel 0: 0.5 / 4. Surfel 2: 1 / 2 + 0.25 / 4 + 0.75 / 1."""
    visible = count_evidence([SMALL], 5)
    assert visible.rows.tolist() == [0, 2]
    assert visible.pixels.tolist() == [1, 3]
    assert visible.weights.tolist() == [0.125, 1.3125]


def test_masked_pixels_do_not_count() -> None:
    needed = torch.tensor([[False, False, True], [True, True, True]])
    visible = count_evidence([SMALL, SMALL], 3, [needed, None])
    assert visible.rows.tolist() == [0, 2]
    assert visible.pixels.tolist() == [1, 5]
    assert visible.weights.tolist() == [0.125, 0.8125 + 1.3125]


def test_votes_by_hand() -> None:
    evidence = view_evidence(SMALL, Sightings.from_mask(SEEN_BY), per_pixel=True)
    assert evidence.pixels.tolist() == [1, 0, 4]
    assert evidence.votes.tolist() == [0.125, 0.0, 1.4375]
    assert evidence.observed is not None
    assert evidence.observed.int().tolist() == [
        [[0, 1, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
        [[1, 1, 1], [0, 0, 1]],
    ]


def test_a_table_of_observers_becomes_offsets_and_ids() -> None:
    sightings = Sightings.from_mask(SEEN_BY)
    assert sightings.indptr.tolist() == [0, 2, 5, 6]
    assert sightings.view_ids.tolist() == [0, 2, 0, 1, 2, 2]
    assert (len(sightings), sightings.views) == (3, 3)


def test_nothing_gives_nothing() -> None:
    hole = picture([[-1]], [[NAN]], [[0.0]])
    for maps in ([], [hole], [hole, hole]):
        visible = count_evidence(maps, 0)
        assert len(visible.rows) == len(visible.pixels) == len(visible.weights) == 0
    evidence = view_evidence(hole, Sightings.from_mask(torch.zeros(0, 3, dtype=torch.bool)))
    assert evidence.pixels.tolist() == [0, 0, 0] and evidence.votes.tolist() == [0.0, 0.0, 0.0]
    assert evidence.observed is None
    nobody = Sightings.from_mask(torch.zeros(3, 0, dtype=torch.bool))
    assert len(view_evidence(SMALL, nobody).votes) == 0


# ---------------------------------------------------------------- against plain numpy


def slow_counts(maps: list[SurfelMap], masks: list[torch.Tensor]) -> VisibleSurfels:
    rows, weights = [], []
    for seen, mask in zip(maps, masks, strict=True):
        ids, cos, depth = seen.ids.numpy(), seen.cos.numpy(), seen.depth.numpy()
        counts = mask.numpy() & (ids >= 0) & (cos > 0)
        rows.append(ids[counts])
        weights.append(cos[counts].astype(np.float64) / (1.0 + depth[counts]))
    visible, which = np.unique(np.concatenate(rows), return_inverse=True)
    pixels = np.bincount(which, minlength=len(visible))
    summed = np.bincount(which, np.concatenate(weights), minlength=len(visible))
    return VisibleSurfels(*(torch.from_numpy(column) for column in (visible, pixels, summed)))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 4))
def test_counts_equal_numpy_bit_by_bit(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [random_picture(rng) for _ in range(count)]
    masks = [torch.from_numpy(rng.random((9, 14)) < 0.7) for _ in range(count)]
    visible, slow = count_evidence(maps, SURFELS, masks), slow_counts(maps, masks)
    for column in ("rows", "pixels", "weights"):
        assert torch.equal(getattr(visible, column), getattr(slow, column))


@given(seed=st.integers(0, 2**32 - 1))
def test_votes_equal_a_table_of_pixels_and_views(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen, mask = random_picture(rng), random_mask(rng)
    evidence = view_evidence(seen, Sightings.from_mask(mask), per_pixel=True)
    speaks = (seen.ids >= 0) & (seen.cos > 0)
    observed = mask[seen.ids.clamp(min=0)].permute(2, 0, 1) & speaks
    weight = (seen.cos.double() / (1 + seen.depth).double()).where(speaks, torch.zeros(()).double())
    assert evidence.observed is not None
    assert torch.equal(evidence.observed, observed)
    assert torch.equal(evidence.pixels, observed.sum((1, 2)))
    torch.testing.assert_close(evidence.votes, (observed * weight).sum((1, 2)), rtol=1e-12, atol=0)


def test_the_memory_counts_as_plain_numpy_does() -> None:
    """The evidence behind a retrieval, on a grid as large as the pictures, with masks."""
    surfels = remember(strolls(3, seed=1)).surfels
    cameras, rng = TARGETS[:3], np.random.default_rng(0)
    side = max(cameras[0].width, cameras[0].height)
    explained = [rng.random((camera.height, camera.width)) < 0.3 for camera in cameras]
    discs = [
        torch.from_numpy(column) for column in (surfels.points, surfels.normals, surfels.radii)
    ]
    maps = [render_surfels(*discs, camera, backs=True) for camera in cameras]
    slow = slow_counts(maps, [torch.from_numpy(~mask) for mask in explained])
    evidence = gather(surfels, cameras, explained, side)
    assert len(evidence.surfels) > 100
    np.testing.assert_array_equal(evidence.surfels, slow.rows)
    np.testing.assert_array_equal(evidence.pixels, slow.pixels)
    np.testing.assert_array_equal(evidence.weights, slow.weights)
    assert evidence.total == sum(mask.size for mask in explained)
    assert evidence.explained == sum(int(mask.sum()) for mask in explained)


# ---------------------------------------------------------------- by law


@given(seed=st.integers(0, 2**32 - 1))
def test_the_names_of_views_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen, mask = random_picture(rng), random_mask(rng)
    order = torch.from_numpy(rng.permutation(VIEWS))
    plain = view_evidence(seen, Sightings.from_mask(mask))
    renamed = view_evidence(seen, Sightings.from_mask(mask[:, order]))
    assert torch.equal(renamed.pixels, plain.pixels[order])
    assert torch.equal(renamed.votes, plain.votes[order])


@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_views_of_a_surfel_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen, tidy = random_picture(rng), Sightings.from_mask(random_mask(rng))
    ids, ends = tidy.view_ids.clone(), tidy.indptr.tolist()
    for start, end in itertools.pairwise(ends):
        ids[start:end] = ids[start:end][torch.from_numpy(rng.permutation(end - start))]
    shuffled = Sightings(tidy.indptr, ids, VIEWS)
    one, other = view_evidence(seen, tidy), view_evidence(seen, shuffled)
    assert torch.equal(one.votes, other.votes) and torch.equal(one.pixels, other.pixels)


@given(seed=st.integers(0, 2**32 - 1))
def test_whoever_has_observed_everything_gets_every_vote(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen, mask = random_picture(rng), random_mask(rng)
    mask[:, 2] = True
    evidence, visible = view_evidence(seen, Sightings.from_mask(mask)), count_evidence([seen], 40)
    assert evidence.pixels[2] == visible.pixels.sum() == ((seen.ids >= 0) & (seen.cos > 0)).sum()
    assert (evidence.votes <= evidence.votes[2]).all()
    torch.testing.assert_close(evidence.votes[2], visible.weights.sum(), rtol=1e-12, atol=0)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("indptr", "view_ids", "why"),
    [
        ([], [], "do not lead from 0 to 0"),
        ([1, 2], [0, 1], "do not lead from 0 to 2"),
        ([0, 1], [0, 1], "do not lead from 0 to 2"),
        ([0, 2, 1, 2], [0, 1], "fall somewhere"),
        ([0, 2], [0, 3], "not between 0 and 2"),
        ([0, 2], [-1, 0], "not between 0 and 2"),
    ],
)
def test_sightings_that_make_no_sense(indptr: list[int], view_ids: list[int], why: str) -> None:
    with pytest.raises(SceneError, match=why):
        Sightings(torch.tensor(indptr).long(), torch.tensor(view_ids).long(), 3)


def test_a_picture_of_other_surfels_is_an_error() -> None:
    with pytest.raises(SceneError, match="row 2 of 2 surfels"):
        count_evidence([SMALL], 2)
    with pytest.raises(SceneError, match="row 2 of 1 surfels"):
        view_evidence(SMALL, Sightings.from_mask(SEEN_BY[:1]))


def test_masks_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(SceneError, match="1 masks for 2 pictures"):
        count_evidence([SMALL, SMALL], 3, [None])
    with pytest.raises(SceneError, match=r"a mask \(3, 2\) for a picture \(2, 3\)"):
        count_evidence([SMALL], 3, [torch.ones(3, 2, dtype=torch.bool)])
