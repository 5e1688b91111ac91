"""MoGe (Wang et al. 2025): metric points of any scene, where its package is installed.

The package `moge` is imported when the backend is chosen, and never by this project's install:
it asks for torchvision and gradio, which running the model does not need. Its weights come as
model.pt, which is read by torch's loader for weights only: it runs no code of the file.
"""

from __future__ import annotations

import importlib
import math
import pickle
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import SceneError
from scenegen.geometry.base import Estimate
from scenegen.geometry.ground import FARTHEST
from scenegen.geometry.relative import NEAREST, metric_depth, scaled_depth
from scenegen.models import check_blob, first_line, hub_folder, say_licence

DEFAULT = "moge"
"""The small model of MoGe-2."""
CONFIDENCE = 0.85
"""It says nothing of its certainty; a little more than Depth Anything (0.8)."""


class MoGe:
    """See :class:`scenegen.geometry.base.DepthEstimator`. Runs on a GPU where there is one."""

    def __init__(self, source: str = DEFAULT) -> None:
        """Load the model.

        Args:
            source: A name of ``scenegen.models.HUB_MODELS``, OWNER/NAME on the hub, or a folder.

        Raises:
            SceneError: The files are missing or not such a model.
        """
        self.network = _load(hub_folder(source))
        say_licence(source)

    def depth(
        self,
        rgb: Float[Tensor, "h w 3"],
        sky: Bool[Tensor, "h w"],
        px_from_cam: Float[Tensor, "3 3"],
        eye_height: float,
    ) -> Estimate:
        fov = math.degrees(2 * math.atan(0.5 * rgb.shape[1] / float(px_from_cam[0, 0])))
        device = self.network.device
        with warnings.catch_warnings():  # about autocast, which it asks for in vain on a CPU
            warnings.simplefilter("ignore", UserWarning)
            answer = self.network.infer(
                rgb.permute(2, 0, 1).to(device), fov_x=fov, use_fp16=device.type == "cuda"
            )
        depth = answer["depth"].float().cpu().clone()  # (h, w), +inf where it sees no surface
        known = torch.isfinite(depth) & (depth > 0)
        depth[~known] = depth[known].max() if known.any() else FARTHEST
        if hasattr(self.network, "scale_head"):
            depth, scale = scaled_depth(depth, sky, px_from_cam, eye_height)
        else:  # MoGe-1: up to scale
            depth, scale = metric_depth(1.0 / depth, sky, px_from_cam, eye_height)
        depth = depth.clamp(NEAREST, FARTHEST)
        return Estimate(depth, torch.where(known, CONFIDENCE, 0.0), scale, sky)


@lru_cache(maxsize=1)
def _load(folder: Path) -> Any:
    """The network, ready to answer. Kept: each view of a world needs it."""
    what = f"{folder} does not hold a MoGe model"
    fix = "name the folder of such a model, with its model.pt"
    if (folder / "model.pt").is_file():
        check_blob(folder / "model.pt")
    try:
        kept = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
        config, weights = dict(kept["model_config"]), dict(kept["model"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        why = f"model.pt cannot be read: {first_line(error)}"
        raise SceneError(what, why=why, fix=fix) from error
    module = importlib.import_module(f"moge.model.{'v2' if 'neck' in config else 'v1'}")
    try:
        network = module.MoGeModel(**config)
        lacking = network.load_state_dict(weights, strict=False).missing_keys
    except (TypeError, KeyError, RuntimeError) as error:
        raise SceneError(what, why=first_line(error), fix=fix) from error
    if lacking:
        why = f"its weights lack {len(lacking)} parts, {lacking[0]} among them"
        raise SceneError(what, why=why, fix=fix)
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
