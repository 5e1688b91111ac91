"""The published rule of VMem (arXiv 2506.18903) for which past views to look at.

Written from its description, and kinder than the released code: normals are taken from both sides
of a point, so that no surfel of the last row and column is dead, and depth is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree

from benchmarks.memory_casting import Pose, pose
from benchmarks.memory_truth import pose_distances
from renderers import Camera
from renderers.surfels import render_surfels

GRID = (25, 19)
"""Columns and rows of surfels of a view: what down-sampling 512 x 384 by 0.05 leaves."""
FLAT = 0.2
"""a of the radius ``0.5 D / f / (a + (1 - a) |n.v|)``."""
FARTHEST = 0.999
"""Depths above this quantile are left out."""
MERGE_COS = 0.6
"""Surfels merge if their normals' cosine is above this."""
NEIGHBOURS = 8
"""Nearest surfels that are looked at for one to merge with; of the implementation."""
ZOOM = 0.65
"""The map is drawn with a focal length so many times that of the target."""
CANDIDATES = 2
"""So many times as many views as are wanted go on from the votes to the choice by pose. The
description does not say; of 1, 2, 4 and 8 this did best."""
RELAX = 1.2
"""Poses may be nearer to each other by this, again and again, until enough are found."""


class VMem:
    """Surfels that know who has seen them vote for views; then the nearest poses, spread out."""

    def __init__(self) -> None:
        self._poses: list[Pose] = []
        self._points, self._normals = np.empty((0, 3)), np.empty((0, 3))
        self._radii = np.empty(0)
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []
        """Surfels that each view has seen, and the view as often."""

    def __len__(self) -> int:
        return len(self._radii)

    def write(self, rgb: np.ndarray, depth: np.ndarray, camera: Camera) -> None:
        """Merge the surfels of the next view into those there are."""
        points, normals, radii = _surfels_of(depth, camera)
        into = self._matches(points, normals, radii)
        new = into < 0
        into[new] = len(self) + np.arange(new.sum())
        self._points = np.concatenate([self._points, points[new]])
        self._normals = np.concatenate([self._normals, normals[new]])
        self._radii = np.concatenate([self._radii, radii[new]])
        surfels = np.unique(into)
        self._seen.append((surfels, np.full(len(surfels), len(self._poses))))
        self._poses.append(pose(camera))

    def _matches(self, points: np.ndarray, normals: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """(n,) the nearest surfel that each merges with, -1 for none."""
        into = np.full(len(points), -1)
        if not len(self) or not len(points):
            return into
        reach = radii.mean() + 0.5 * radii.std()
        distances, near = cKDTree(self._points).query(
            points, NEIGHBOURS, distance_upper_bound=reach
        )
        for column in reversed(range(NEIGHBOURS)):  # the nearest has the last word
            there = np.flatnonzero(np.isfinite(distances[:, column]))
            rows = near[there, column]
            alike = (self._normals[rows] * normals[there]).sum(1) > MERGE_COS
            into[there[alike]] = rows[alike]
        return into

    def choose(self, target: Camera, k: int) -> Sequence[int]:
        """The views with most votes; of these the nearest poses that are not near each other."""
        votes = self._votes(target)
        candidates = np.argsort(-votes, kind="stable")[: CANDIDATES * k]
        candidates = candidates[votes[candidates] > 0.0]
        if len(candidates) <= k:
            return candidates.tolist()
        poses = [self._poses[view] for view in candidates]
        return candidates[_spread(target, poses, k)].tolist()

    def _votes(self, target: Camera) -> np.ndarray:
        """(views,) cos / (1 + z), summed over the pixels whose surfel a view has seen."""
        lens = target.px_from_cam.clone()
        lens[0, 0] *= ZOOM
        lens[1, 1] *= ZOOM
        discs = (self._points, self._normals, self._radii)
        seen = render_surfels(
            *(torch.from_numpy(part).float() for part in discs), replace(target, px_from_cam=lens)
        )
        ids, covered = seen.ids.numpy(), seen.ids.numpy() >= 0
        weights = seen.cos.numpy()[covered] / (1.0 + seen.depth.numpy()[covered])
        of_surfel = np.bincount(ids[covered], weights, len(self))
        surfels, views = map(np.concatenate, zip(*self._seen, strict=True))
        return np.bincount(views, of_surfel[surfels], len(self._poses))


def _surfels_of(depth: np.ndarray, camera: Camera) -> tuple[np.ndarray, ...]:
    """Points (n, 3), normals (n, 3) towards the camera, and radii (n,) of a view."""
    small = camera.resized(*GRID)
    height, width = depth.shape
    v, u = np.indices(GRID[::-1]) + 0.5
    z = depth[(v * height / GRID[1]).astype(int), (u * width / GRID[0]).astype(int)]
    z = z.astype(np.float64)
    z[~np.isfinite(z)] = np.nan
    rotation, eye, lens = pose(small)
    local = np.stack([(u - lens[2]) / lens[0] * z, (v - lens[3]) / lens[1] * z, z], -1)
    normals = np.cross(np.gradient(local, axis=0), np.gradient(local, axis=1))
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = normals / np.where(length > 0.0, length, np.nan)
    facing = (normals * local).sum(-1) / np.linalg.norm(local, axis=-1)
    normals *= -np.sign(facing)[..., None]
    radii = 0.5 * z / lens[0] / (FLAT + (1.0 - FLAT) * np.abs(facing))
    known = np.isfinite(normals).all(-1)
    if known.any():
        known &= ~(z > np.quantile(z[known], FARTHEST))
    return local[known] @ rotation + eye, normals[known] @ rotation, radii[known]


def _spread(target: Camera, poses: Sequence[Pose], k: int) -> list[int]:
    """The ``k`` nearest poses that are further from each other than a threshold.

    It is the median of all distances between two, and shrinks until enough are found.
    """
    between = np.stack([pose_distances(one, poses) for one in poses])
    threshold = np.median(between[np.triu_indices(len(poses), 1)])
    order = pose_distances(pose(target), poses).argsort(kind="stable").tolist()
    while True:
        chosen: list[int] = []
        for i in order:
            if len(chosen) < k and all(between[i, j] > threshold for j in chosen):
                chosen.append(i)
        if len(chosen) == k or threshold < 1e-6:
            return [*chosen, *(i for i in order if i not in chosen)][:k]
        threshold /= RELAX
