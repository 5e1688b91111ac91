"""FastDepth (Wofk et al. 2019): a 1.4 M network trained on rooms, metric, 224 x 224."""

from __future__ import annotations

import kornia
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scenegen.geometry.base import Estimate
from scenegen.geometry.ground import fit_ground, on_ground
from scenegen.geometry.prior import PriorDepth
from scenegen.models.onnx import onnx_session

SIDE = 224
"""The network's input is a square of this many pixels, squeezed from 4:3 in its training."""
NYU_FOCAL = 0.811
"""Focal length over image width of the camera it was trained on (518.9 / 640)."""
NEAREST, FARTHEST = 0.3, 12.0
"""Range of its answers that its training data holds, in metres."""
SMOOTH = 1.5
"""Gaussian blur of its answer, in its pixels: it prints the grid of its upsampling."""
WEIGHT, WEIGHT_OUTDOORS = 0.7, 0.35
"""Its weight against the prior, in log depth, and where sky is seen: it has never seen a street.
The layout of the prior errs differently, so the mean of both is better than either."""
CONFIDENCE = 0.5
"""It says nothing of its certainty; between the prior (0.2) and a measured depth (1)."""


class FastDepth:
    """Runs the ONNX file with ONNX Runtime. See :class:`scenegen.geometry.base.DepthEstimator`."""

    def __init__(self) -> None:
        self.session = onnx_session("fastdepth")

    def depth(
        self,
        rgb: Float[Tensor, "h w 3"],
        sky: Bool[Tensor, "h w"],
        px_from_cam: Float[Tensor, "3 3"],
        eye_height: float,
    ) -> Estimate:
        depth = self.answer(rgb, px_from_cam)
        fit = fit_ground(depth, sky, px_from_cam, eye_height)
        depth = depth if fit is None else fit.depth(depth)
        prior = PriorDepth().depth(rgb, sky, px_from_cam, eye_height)
        weight = WEIGHT_OUTDOORS if sky.any() else WEIGHT
        depth = depth**weight * prior.depth ** (1 - weight)
        learnt = f"metres learnt from rooms, as too little ground is seen; {prior.scale}"
        scale = learnt if fit is None else on_ground(eye_height)
        return Estimate(depth, torch.full_like(depth, CONFIDENCE), scale, sky)

    def answer(
        self, rgb: Float[Tensor, "h w 3"], px_from_cam: Float[Tensor, "3 3"]
    ) -> Float[Tensor, "h w"]:
        """What the network says on its own, in metres as it learnt them."""
        height, width = rgb.shape[:2]
        square = torch.nn.functional.interpolate(
            rgb.permute(2, 0, 1)[None], (SIDE, SIDE), mode="bilinear", antialias=True
        )
        answers = [self._run(square), self._run(square.flip(3)).flip(3)]
        disparity = 1.0 / torch.stack(answers).clamp(NEAREST, FARTHEST).mean(0)
        disparity = kornia.filters.gaussian_blur2d(disparity, (9, 9), (SMOOTH, SMOOTH))
        disparity = torch.nn.functional.interpolate(disparity, (height, width), mode="bicubic")
        zoom = float(px_from_cam[0, 0]) / width / NYU_FOCAL
        return zoom / disparity[0, 0].clamp_min(1.0 / FARTHEST)

    def _run(self, square: Float[Tensor, "1 3 224 224"]) -> Float[Tensor, "1 1 224 224"]:
        name = self.session.get_inputs()[0].name
        image = np.ascontiguousarray(square.clamp(0, 1).numpy(), dtype=np.float32)
        (answer,) = self.session.run(None, {name: image})
        return torch.from_numpy(answer)
