"""Photographs of the outdoors by cameras with two eyes; none is part of this project.

Libraries that read pictures bring them along as tests, and here they are for measuring only:

  rocks    a rock garden, Fujifilm's W3 (Tests/images of Pillow's source distribution, which is
           under the MIT-CMU licence and says nothing of this picture)
  terrace  a deck with plants, Apple's spatial photograph (tests/images of pillow-heif's, which is
           under the BSD licence and says nothing of this picture)
  path     a path between bushes, of Nokia's examples of HEIF (there too, copyright Nokia)

How their two lenses stand to each other is not known, but they stand side by side. The right
picture is turned, zoomed and moved until its rows are those of the left one; the terrace, of which
the lenses are known and wide, is rectified as the road is. Depth is then found by semi-global
matching, as in depth_data.py. Where infinity is in disparity is told by the path alone, which
shows trees far beyond a lake: what is nearer has depth up to a scale, true within a tenth. Of the
others only the order is known: no lens that the terrace tells makes its wall stand upright on its
floor. Two more pairs of Pillow were looked at and left out: their snow is matched wrongly.

  pip download --no-deps --no-binary pillow pillow==11.0.0            and name Tests/images
  pip download --no-deps --no-binary pillow-heif pillow-heif==1.8.1   and name tests/images
  pip install --no-deps pillow-heif                                   which reads the latter
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.depth_data import Sample, as_sample, lacks, matched_depth
from benchmarks.depth_outdoors import (
    SCOPE,
    Eye,
    matched_pair,
    matching_rays,
    relative_pose,
    shared_points,
    textured,
)
from renderers import SceneError

ROCKS = "fujifilm.mpo"
TERRACE = "heif_other/spatial_photo.heic"
PATH = "heif_other/nokia/stereo_1200x800.heic"
WIDTH = 800
"""Pictures are matched at this width, in pixels."""
FARTHEST = 4.0
"""Disparity at which the farthest matches are put, in pixels: matching finds none below 0."""
FAR_SHARE = 1.0
"""This share of the matches, in percent, may be farther, or wrong."""
LEAST = 5.0
"""Disparity above that of trees some hundred metres away from which the depth of the path is
believed, in pixels: they are less than half a pixel from infinity."""
FEWEST = 100
"""With fewer matches than this nothing is said of two pictures."""
ROUGHEST = 0.5
"""Rows may differ by this much in the middle of all matches once they are levelled, in pixels."""


def pairs(pillow: Path | None, heif: Path | None, absent: dict[str, str]) -> Iterator[Sample]:
    """All that is there; what is not is entered into ``absent``, with how to get it.

    Args:
        pillow: Folder ``Tests/images`` of Pillow's source distribution.
        heif: Folder ``tests/images`` of pillow-heif's source distribution.
        absent: Names of what is missing, with reasons.
    """
    cv2 = importlib.util.find_spec("cv2") is not None
    no_cv2 = "OpenCV, which matches it, is not installed: pip install opencv-python-headless"
    if pillow is None or not (pillow / ROCKS).is_file():
        why = "it comes with Pillow's source distribution: see benchmarks/depth_pairs.py"
        lacks(absent, SCOPE, ["rocks"], why)
    elif not cv2:
        lacks(absent, SCOPE, ["rocks"], no_cv2)
    else:
        yield _rocks(pillow / ROCKS)
    if heif is None or not all((heif / name).is_file() for name in (TERRACE, PATH)):
        why = "they come with pillow-heif's source distribution: see benchmarks/depth_pairs.py"
        lacks(absent, SCOPE, ["terrace", "path"], why)
    elif not cv2:
        lacks(absent, SCOPE, ["terrace", "path"], no_cv2)
    elif importlib.util.find_spec("pillow_heif") is None:
        why = "pillow-heif, which reads them, is not installed: pip install --no-deps pillow-heif"
        lacks(absent, SCOPE, ["terrace", "path"], why)
    else:
        importlib.import_module("pillow_heif").register_heif_opener()
        yield _terrace(heif / TERRACE)
        yield _path(heif / PATH)


def _rocks(file: Path) -> Sample:
    left, right = _both(file)
    truth = 1.0 / levelled_disparity(left, right)
    return as_sample("rocks", SCOPE, left.astype(np.float32) / 255, truth, None, ordinal=True)


def _path(file: Path) -> Sample:
    right, left = _both(file)  # it holds the right eye first
    disparity = levelled_disparity(left, right) - FARTHEST
    truth = 1.0 / np.where(disparity > LEAST, disparity, np.nan)
    return as_sample("path", SCOPE, left.astype(np.float32) / 255, truth, None)


def _terrace(file: Path) -> Sample:
    eyes = []
    for rgb, told in zip(_both(file), _told(file), strict=True):
        lens = np.diag([told["focal_length_x"], told["focal_length_y"], 1.0])
        lens[:2, 2] = told["principal_point_x"], told["principal_point_y"]
        lens[:2] *= WIDTH / told["width"]
        eyes.append(Eye(rgb, lens, np.zeros(5)))
    turn, shift = relative_pose(*matching_rays([eyes]), eyes[0].px_from_cam[0, 0])
    return matched_pair("terrace", eyes, turn, shift, ordinal=True)


def levelled_disparity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Disparity of the left picture, whose farthest parts have about FARTHEST; NaN elsewhere.

    Args:
        left: (h, w, 3) uint8.
        right: The picture by the other eye, at most a little turned and zoomed.

    Raises:
        SceneError: They do not fit together.
    """
    import cv2

    height, width = left.shape[:2]
    right = cv2.warpAffine(right, levelling(*shared_points(left, right)), (width, height))
    grey = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (left, right)]
    disparity = 1.0 / matched_depth(grey[0], grey[1], 1.0, reach=math.inf)
    return np.where(textured(grey[0]), disparity, np.nan)


def levelling(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Similarity (2, 3) that brings points of a right picture to the rows of the left one's.

    Found by least squares, robust (soft L1). Along the rows it puts the farthest at FARTHEST.

    Args:
        left: Points (n, 2), in pixels.
        right: The points that match them.

    Raises:
        SceneError: There are too few of them, or their rows cannot be made to agree.
    """
    from scipy.optimize import least_squares

    if len(left) < FEWEST:
        raise _not_a_pair(f"only {len(left)} of their points match")
    terms = np.c_[np.ones(len(right)), right]
    lower = left[:, 1] - right[:, 1]
    start = np.array([np.median(lower), 0.0, 0.0])
    fit: Any = least_squares(lambda k: terms @ k - lower, start, loss="soft_l1", f_scale=0.3)
    down, turn, zoom = fit.x
    misses = np.abs(fit.fun)
    if np.median(misses) > ROUGHEST:
        raise _not_a_pair(f"rows differ by {np.median(misses):.1f} pixels however they are turned")
    kept = misses < 2 * ROUGHEST
    disparity = (left[:, 0] - (1 + zoom) * right[:, 0] + turn * right[:, 1])[kept]
    aside = np.percentile(disparity, FAR_SHARE) - FARTHEST
    return np.array([[1 + zoom, -turn, aside], [turn, 1 + zoom, down]])


def _not_a_pair(why: str) -> SceneError:
    return SceneError(
        "two pictures are not of the same place from side by side",
        why=why,
        fix="take the source distribution that benchmarks/depth_pairs.py names",
    )


def _told(file: Path) -> list[dict[str, float]]:
    """Focal lengths and principal points of both eyes, and their width, all in pixels."""
    told = []
    with Image.open(file) as image:
        for number in (0, 1):
            image.seek(number)
            told.append({**image.info["heif"]["camera_intrinsic_matrix"], "width": image.width})
    return told


def _both(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The two pictures that a file holds, (h, WIDTH, 3) uint8."""
    with Image.open(file) as image:
        height = round(image.height * WIDTH / image.width)
        eyes = []
        for number in (0, 1):
            image.seek(number)
            small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.BOX)
            eyes.append(np.asarray(small))
    return eyes[0], eyes[1]
