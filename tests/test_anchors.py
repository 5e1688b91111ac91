"""What is laid out beyond an open side, by hand."""

from __future__ import annotations

import pytest
import torch

from renderers import Camera
from scenegen.outpaint.anchors import anchored


def hidden(rows: slice = slice(None), columns: slice = slice(None)) -> torch.Tensor:
    known = torch.ones(4, 8, dtype=torch.bool)
    known[rows, columns] = False
    return known


def test_a_hole_at_a_side_lies_between_known_columns() -> None:
    right = anchored(hidden(columns=slice(6, 8)))
    assert right.columns.lines == [2, 3, 4, 5, 6, 7, 5, 4] and right.rows.lines == [0, 1, 2, 3]
    assert right.columns.own == slice(2, 8) and right.columns.place == slice(0, 6)
    left = anchored(hidden(columns=slice(0, 2)))
    assert left.columns.lines == [3, 2, 0, 1, 2, 3, 4, 5]
    assert left.columns.own == slice(0, 6) and left.columns.place == slice(2, 8)
    both = hidden(columns=slice(6, 8)) & hidden(columns=slice(0, 2))
    assert anchored(both).columns.lines == [3, 2, *range(8), 5, 4]
    wide = torch.ones(4, 32, dtype=torch.bool)
    wide[:, 24:] = False  # two known columns are skipped
    assert anchored(wide).columns.lines == [*range(8, 32), *range(21, 13, -1)]
    top = anchored(hidden(rows=slice(0, 1)))
    assert top.rows.lines == [1, 0, 1, 2] and top.columns.lines == list(range(8))


@pytest.mark.parametrize(
    "known",
    [hidden(columns=slice(3, 5)), hidden(slice(2, 4), slice(6, 8)), hidden(slice(3, 4))[:3]],
    ids=["inside", "half a side", "whole"],
)
def test_other_views_are_laid_out_as_they_are(known: torch.Tensor) -> None:
    laid = anchored(known)
    assert laid.columns.lines == list(range(8))
    assert laid.rows.lines == list(range(len(known)))


def test_single_gaps_do_not_move_the_mirror() -> None:
    known = torch.ones(10, 8, dtype=torch.bool)
    known[:, 6:] = False
    known[3, 2:] = False  # one gap of ten reaches further
    assert anchored(known).columns.lines[-2:] == [5, 4]
    known[3:6, 2:] = False
    assert anchored(known).columns.lines[-2:] == [1, 0]


def test_few_known_columns_are_all_laid_out_and_none_is_no_error() -> None:
    assert anchored(hidden(columns=slice(1, 8))).columns.lines == [*range(8), 0]
    assert anchored(hidden()).columns.lines == list(range(8))


def test_what_is_painted_comes_back_to_its_place() -> None:
    """Painted by copying, the view is what it was; by a constant, all but what was left out is."""
    known = hidden(columns=slice(6, 8)) & hidden(rows=slice(0, 1))
    rgb = torch.rand(4, 8, 3)
    laid = anchored(known)
    assert torch.equal(laid.gathered(laid.spread(rgb), rgb), rgb)
    known = hidden(columns=slice(6, 8))
    laid = anchored(known)
    grey = laid.gathered(torch.full((4, 8, 3), 0.5), rgb)
    assert torch.equal(grey[:, :2], rgb[:, :2]) and bool((grey[:, 2:] == 0.5).all())


def test_the_camera_sees_the_same_where_the_view_is() -> None:
    camera = Camera.from_fov(60.0, 8, 4)
    laid = anchored(hidden(columns=slice(0, 2)) & hidden(rows=slice(0, 1)))
    wide = laid.camera(camera)
    assert (wide.height, wide.width) == laid.spread(torch.zeros(4, 8)).shape
    points = camera.unproject(camera.pixel_centers(), torch.full((4, 8), 3.0))
    again = wide.unproject(wide.pixel_centers(), torch.full((wide.height, wide.width), 3.0))
    torch.testing.assert_close(laid.gathered(again, torch.zeros(4, 8, 3))[:, :6][:3],
                               points[:, :6][:3])  # fmt: skip
