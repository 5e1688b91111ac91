"""What a memory says about itself: it must agree, to the pixel, with what retrieval decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rooms import SMALL, TARGETS, photograph, remember, stand, strolls, truly_seen

from spatial_memory import ViewMemory, evidence_map, shares_shown, sightings
from spatial_memory.explain import HIDDEN, UNEXPLAINED, UNMAPPED

MEMORY = remember(strolls(12, seed=3))


@pytest.mark.parametrize("target", TARGETS[:4])
def test_each_chosen_view_explains_as_many_pixels_as_it_gained(target) -> None:
    hit = MEMORY.retrieve([target], k=4)
    found = evidence_map(MEMORY, target, hit.view_ids, SMALL.evidence_side)
    shares = [float((found == rank).double().mean()) for rank in range(len(hit.view_ids))]
    assert shares == pytest.approx(hit.gains, abs=1e-12)
    assert float((found >= 0).double().mean()) == pytest.approx(hit.coverage, abs=1e-12)


def test_shares_are_those_in_the_reasons() -> None:
    shown, hit = shares_shown(MEMORY, TARGETS[0]), MEMORY.retrieve([TARGETS[0]], k=2)
    assert shown.keys() == hit.reasons.keys()
    for view_id, reason in hit.reasons.items():
        words = f"shows {shown[view_id]:.1%}" if shown[view_id] else "has seen nothing"
        assert words in reason


def test_the_map_tells_the_truth_about_a_view_and_what_it_cannot_see() -> None:
    view, target = stand(-2.0, 1.0, 0.0), stand(-1.6, 0.8, 10.0)
    found = evidence_map(remember([view]), target, [0])
    truth = torch.from_numpy(truly_seen(target, view).reshape(found.shape))
    assert found.shape == (64, 96)
    assert float(((found == 0) == truth).float().mean()) > 0.93
    assert set(found.unique().tolist()) <= {0, UNEXPLAINED, UNMAPPED, HIDDEN}


def test_order_decides_who_is_named_and_nobody_means_unexplained() -> None:
    view = stand(-2.0, 1.0, 0.0)
    memory = remember([view, view])
    first, second = (evidence_map(memory, view, ids) for ids in ([0, 1], [1, 0]))
    assert torch.equal(first, second)
    assert float((first == 0).float().mean()) > 0.9
    nobody = evidence_map(memory, view, [])
    assert torch.equal(nobody == UNEXPLAINED, first == 0)
    assert torch.equal(nobody == UNMAPPED, first == UNMAPPED)
    assert (evidence_map(memory, view, [7]) < 0).all()


def test_sightings_count_what_is_lost_with_a_view() -> None:
    memory = remember(strolls(5, seed=4))
    seen = sightings(memory)
    assert list(seen) == [0, 1, 2, 3, 4]
    _, views = memory.surfels.observers.pairs()
    assert [seen[i].surfels for i in seen] == np.bincount(views).tolist()
    before = len(memory.surfels)
    memory.forget(2)
    assert before - len(memory.surfels) == seen[2].alone
    assert list(sightings(memory)) == [0, 1, 3, 4]


def test_an_empty_memory_has_nothing_to_say() -> None:
    memory = ViewMemory(SMALL)
    assert sightings(memory) == {} and shares_shown(memory, TARGETS[0]) == {}
    assert (evidence_map(memory, TARGETS[0], []) == UNMAPPED).all()
    memory.write(*photograph(TARGETS[0]), TARGETS[0])
    memory.forget(0)
    assert sightings(memory) == {}


def test_what_lies_behind_unknown_space_is_shown_as_such() -> None:
    """As in test_memory_freespace: one view on each side of a wall that neither has seen."""
    memory = remember([stand(-3.0, 0.5, 20.0), stand(0.5, 3.0, 150.0)])
    target = stand(-2.5, 2.5, 100.0)
    found = evidence_map(memory, target, [0, 1])
    assert (found == 0).any() and not (found == 1).any()
    assert float((found == HIDDEN).double().mean()) > 0.2
