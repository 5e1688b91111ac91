"""Photographs by two eyes, and points of a reconstruction: on pictures made up for it."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks import depth, depth_outdoors
from benchmarks.depth_data import Sample, lacks
from benchmarks.depth_outdoors import points_as_map, textured
from benchmarks.depth_pairs import FARTHEST, levelled_disparity, levelling, pairs
from renderers import SceneError

NO_CV2 = importlib.util.find_spec("cv2") is None
TURN, ZOOM, DOWN = 0.004, 0.003, -2.5


def seen_twice(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Points with disparities of -30 to 20, of which a tenth are matched wrongly."""
    rng = np.random.default_rng(0)
    left = rng.uniform((40, 0), (760, 600), (count, 2))
    level = left - np.c_[rng.uniform(-30, 20, count), np.zeros(count)]
    level[::10, 1] += rng.uniform(5, 50, len(level[::10]))
    back = np.linalg.inv([[1 + ZOOM, -TURN], [TURN, 1 + ZOOM]])
    return left, (level - (0, DOWN)) @ back.T


def test_a_right_picture_is_turned_and_zoomed_to_the_left_ones_rows() -> None:
    left, right = seen_twice()
    found = levelling(left, right)
    expected = [[1 + ZOOM, -TURN], [TURN, 1 + ZOOM]]
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-4)
    assert found[1, 2] == pytest.approx(DOWN, abs=0.1)
    disparity = left[:, 0] - right @ found[0, :2] - found[0, 2]
    assert np.sort(disparity)[4] == pytest.approx(FARTHEST, abs=0.5)
    assert disparity.max() == pytest.approx(FARTHEST + 50, abs=1.5)


def test_pictures_of_two_places_are_no_pair() -> None:
    left, right = seen_twice()
    with pytest.raises(SceneError, match=r"only 99 .*points") as few:
        levelling(left[:99], right[:99])
    assert "benchmarks/depth_pairs.py" in few.value.fix
    apart = np.random.default_rng(1).uniform(0, 600, right.shape)
    with pytest.raises(SceneError, match="however they are turned"):
        levelling(left, apart)


@pytest.mark.skipif(NO_CV2, reason="needs `pip install opencv-python-headless`")
def test_two_eyes_see_what_is_nearer() -> None:
    """A square 20 pixels nearer than what is behind it; the right eye is turned and lower."""
    import cv2

    rng = np.random.default_rng(0)
    far = cv2.GaussianBlur(rng.uniform(0, 255, (300, 500, 3)), (0, 0), 1.5)
    near = cv2.GaussianBlur(rng.uniform(0, 255, (120, 150, 3)), (0, 0), 1.5)
    left, right = 3 * far - 255, 3 * far - 255
    left[90:210, 200:350] = right[90:210, 180:330] = 3 * near - 255
    askew = np.array([[1.0, 0.004, 0.0], [-0.004, 1.0, 2.0]])
    eyes = [np.clip(eye, 0, 255).astype(np.uint8) for eye in (left, right)]
    disparity = levelled_disparity(eyes[0], cv2.warpAffine(eyes[1], askew, (500, 300)))
    behind = np.nanmedian(disparity[20:80, 100:450])
    assert behind == pytest.approx(FARTHEST, abs=0.3)
    assert np.nanmedian(disparity[120:180, 230:320]) - behind == pytest.approx(20, abs=0.3)
    assert np.isfinite(disparity[120:180, 230:320]).mean() > 0.9


@pytest.mark.skipif(NO_CV2, reason="needs `pip install opencv-python-headless`")
def test_nothing_is_known_beside_what_is_blank() -> None:
    """Noise to the left of column 50, and a sky that differs by one level from it on."""
    grey = np.random.default_rng(0).integers(0, 255, (60, 100)).astype(np.uint8)
    grey[:, 50:] = 200 + (np.arange(50) // 25)
    known = textured(grey)
    assert known[:, :42].all() and not known[:, 50:].any()
    known = textured(np.random.default_rng(0).integers(90, 100, (60, 100)).astype(np.uint8))
    assert known.all()


def test_pairs_say_where_they_are_to_be_had(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        absent: dict[str, str] = {}
        assert not list(pairs(folder, folder, absent))
        assert "Pillow's source distribution" in absent["rocks"]
        assert "pillow-heif's source distribution" in absent["path"]
        assert absent["matched outdoor"].startswith("it lacks rocks, terrace, path, so its mean")


def test_all_that_a_scope_lacks_is_listed() -> None:
    absent: dict[str, str] = {}
    lacks(absent, "scope", ["a", "b"], "gone")
    lacks(absent, "scope", ["c"], "lost")
    assert absent == {
        **{"a": "gone", "b": "gone", "c": "lost"},
        "scope": "it lacks a, b, c, so its mean is not taken",
    }


def test_points_become_a_map_the_nearest_of_a_pixel_first() -> None:
    pixels = np.array([[0.9, 0.1], [0.2, 0.8], [3.5, 1.0], [4.0, 0.0], [-0.1, 0.0], [2.0, 1.9]])
    found = points_as_map(pixels, np.array([5.0, 2.0, 3.0, 1.0, 1.0, -1.0]), 4, 2)
    nan = math.nan
    np.testing.assert_array_equal(found, [[2.0, nan, nan, nan], [nan, nan, nan, 3.0]])


def test_single_points_say_nothing_of_edges() -> None:
    truth = torch.tensor([[1.0, 2.0, 4.0, math.nan]]).expand(2, 4).contiguous()
    whole = Sample("s", "matched outdoor", torch.rand(2, 4, 3), truth)
    points = Sample("s", "matched outdoor", torch.rand(2, 4, 3), truth, sparse=True)
    assert set(depth.measured(1 / truth, whole)) == {"spearman", "absrel", "delta1", "edges"}
    assert set(depth.measured(1 / truth, points)) == {"spearman", "absrel", "delta1"}


def reconstruction(folder: Path, off: float) -> np.ndarray:
    """An OpenSfM project of 50 points in one view; they are seen ``off`` pixels of 800 aside."""
    rng = np.random.default_rng(0)
    there = rng.uniform((-2, -1.5, 5), (2, 1.5, 9), (50, 3))
    turn, shift = [0.3, -0.2, 0.1], np.array([1.0, 2.0, 3.0])
    places = (there - shift) @ Rotation.from_rotvec(turn).as_matrix()
    camera = {"focal": 0.9, "k1": 0.02, "k2": -0.001}
    rays = there[:, :2] / there[:, 2:]
    square = (rays**2).sum(1, keepdims=True)
    seen = 0.9 * rays * (1 + 0.02 * square - 0.001 * square**2) + (off / 800, 0)
    scene = {
        "cameras": {"lens": camera},
        "shots": {"02.jpg": {"camera": "lens", "rotation": turn, "translation": [*shift]}},
        "points": {str(n): {"coordinates": [*place]} for n, place in enumerate(places)},
    }
    lines = [f"02.jpg\t{n}\t0\t{x}\t{y}\t0.1\t1\t2\t3" for n, (x, y) in enumerate(seen)]
    others = ["01.jpg\t0\t0\t0.3\t0.1\t0.1\t1\t2\t3", "02.jpg\t77\t0\t0.3\t0.1\t0.1\t1\t2\t3"]
    (folder / "reconstruction.json").write_text(json.dumps([scene]))
    (folder / "tracks.csv").write_text("\n".join(["OPENSFM_TRACKS_VERSION_v1", *lines, *others]))
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (1600, 1200), (255, 0, 0)).save(folder / "images" / "02.jpg")
    return np.c_[seen * 800 + (400, 300), there[:, 2]]


def test_points_of_a_reconstruction_are_where_they_were_seen(tmp_path: Path) -> None:
    expected = reconstruction(tmp_path, off=0.5)
    sample = depth_outdoors._cathedral(tmp_path)
    assert sample.sparse and sample.truth.shape == (600, 800) and sample.rgb.shape == (600, 800, 3)
    assert sample.fov_degrees == pytest.approx(math.degrees(2 * math.atan(0.5 / 0.9)))
    assert int(torch.isfinite(sample.truth).sum()) == 50
    for x, y, depth_there in expected:
        assert float(sample.truth[int(y), int(x)]) == pytest.approx(depth_there, rel=1e-5)


def test_a_reconstruction_of_something_else_is_refused(tmp_path: Path) -> None:
    reconstruction(tmp_path, off=3.0)
    with pytest.raises(SceneError, match="are not where"):
        depth_outdoors._cathedral(tmp_path)
