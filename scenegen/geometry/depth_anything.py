"""Depth Anything (Yang et al. 2024), V1 and V2, through transformers: relative or metric depth.

The weights are read from safetensors files that were pulled before, or from a folder; nothing
goes online. Images are prepared here, as the model's own file of settings says, because the
classes of transformers that do so come and go with torchvision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from renderers import SceneError
from scenegen.geometry.base import Estimate
from scenegen.geometry.ground import FARTHEST
from scenegen.geometry.relative import NEAREST, metric_depth, scaled_depth
from scenegen.models import check_blob, first_line, hub_folder, say_licence

DEFAULT = "depth-anything"
"""The small model, the only one of V2 whose licence is free."""
CONFIDENCE = 0.8
"""It says nothing of its certainty; between FastDepth (0.5) and a measured depth (1)."""


@dataclass(frozen=True)
class Preparation:
    """What an image goes through before the network: preprocessor_config.json."""

    side: int = 518
    """Size that the image is brought near to, in pixels."""
    multiple: int = 14
    """Both sides are multiples of this: the size of a patch."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @classmethod
    def read(cls, folder: Path) -> Preparation:
        """The settings in a folder; those of the published models where it has none."""
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            return cls()
        found = json.loads(path.read_text())
        size = found.get("size") or {}
        return cls(
            side=int(size.get("height", cls.side)),
            multiple=int(found.get("ensure_multiple_of") or cls.multiple),
            mean=tuple(found.get("image_mean") or cls.mean),
            std=tuple(found.get("image_std") or cls.std),
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network's input: the shape kept, resized as little as it can."""
        by_height, by_width = self.side / height, self.side / width
        scale = by_width if abs(1 - by_width) < abs(1 - by_height) else by_height
        rows, columns = (max(1, round(scale * n / self.multiple)) for n in (height, width))
        return rows * self.multiple, columns * self.multiple

    def __call__(self, rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "1 3 _ _"]:
        """The network's input."""
        size = self.size(rgb.shape[0], rgb.shape[1])
        planes = interpolate(rgb.permute(2, 0, 1)[None], size, mode="bicubic", antialias=True)
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (planes.clamp(0, 1) - mean) / std


class DepthAnything:
    """See :class:`scenegen.geometry.base.DepthEstimator`. Runs on a GPU where there is one."""

    def __init__(self, source: str = DEFAULT) -> None:
        """Load the model.

        Args:
            source: A name of ``scenegen.models.HUB_MODELS``, OWNER/NAME on the hub, or a folder.

        Raises:
            SceneError: The files are missing or not such a model.
        """
        folder = hub_folder(source)
        self.network, self.prepare = _load(folder)
        self.metric = self.network.config.depth_estimation_type == "metric"
        say_licence(source)

    def depth(
        self,
        rgb: Float[Tensor, "h w 3"],
        sky: Bool[Tensor, "h w"],
        px_from_cam: Float[Tensor, "3 3"],
        eye_height: float,
    ) -> Estimate:
        pixels = self.prepare(rgb).to(self.network.device)
        answer = self.network(pixel_values=pixels).predicted_depth.float().cpu()  # (1, _, _)
        answer = interpolate(answer[None], rgb.shape[:2], mode="bilinear")[0, 0]
        in_metres = scaled_depth if self.metric else metric_depth
        depth, scale = in_metres(answer, sky, px_from_cam, eye_height)
        depth = depth.clamp(NEAREST, FARTHEST)
        return Estimate(depth, torch.full_like(depth, CONFIDENCE), scale, sky)


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[Any, Preparation]:
    """The network, ready to answer, and its preparation. Kept: each view of a world needs it."""
    what = f"{folder} does not hold a Depth Anything model"
    fix = "name the folder of such a model, with config.json and *.safetensors"
    try:
        config = json.loads((folder / "config.json").read_text())
        prepare = Preparation.read(folder)
    except (OSError, ValueError, TypeError) as error:
        raise SceneError(what, why=f"its settings cannot be read: {error}", fix=fix) from error
    if config.get("model_type") != "depth_anything":
        kind = config.get("model_type", "nothing known")
        raise SceneError(what, why=f"its config.json describes {kind}", fix=fix)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SceneError(what, why="it holds no safetensors file; pickles are not opened", fix=fix)
    for file in files:
        check_blob(file)
    from transformers import DepthAnythingForDepthEstimation
    from transformers.utils import logging as theirs

    bar, level = theirs.is_progress_bar_enabled(), theirs.get_verbosity()
    theirs.disable_progress_bar()
    theirs.set_verbosity_error()
    try:
        loaded: Any = DepthAnythingForDepthEstimation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # a damaged file surfaces as errors of many kinds
        raise SceneError(what, why=first_line(error), fix=fix) from error
    finally:
        theirs.set_verbosity(level)
        if bar:
            theirs.enable_progress_bar()
    network, report = loaded
    lacking = {*report["missing_keys"], *report["mismatched_keys"]}
    if lacking:  # transformers would fill them with random numbers
        why = f"its weights lack {len(lacking)} parts, {min(map(str, lacking))} among them"
        raise SceneError(what, why=why, fix=fix)
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise SceneError(what, why="its weights hold values that are not finite", fix=fix)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.eval().to(device), prepare
