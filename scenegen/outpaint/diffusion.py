"""Inpainting pipelines of diffusers: FLUX.2 klein, which is shown a retrieved view, and SDXL.

Nothing goes online: the files were pulled before, or lie in a folder that was named, and only
safetensors are opened. Runs on a GPU where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from renderers import Camera, SceneError
from scenegen.models import check_blob, first_line, hub_folder, say_licence
from scenegen.outpaint.base import Reference

PROMPT = "the same place, continued beyond the edge of the photograph"
"""What is painted when the user does not say."""
MULTIPLE = 32
"""Sides of the pictures that pipelines work on are multiples of this, in pixels."""


@dataclass(frozen=True)
class _Kind:
    """What is particular to one family of pipelines."""

    pipeline: str
    """Its class in diffusers."""
    family: str
    """Beginning of the class names in the model_index.json of such models."""
    steps: int
    side: int
    """Longer side that it is used to, in pixels. Smaller views are not enlarged beyond it."""
    reference: bool
    """Whether it can be shown another picture of the place."""


_KINDS = {
    "flux": _Kind("Flux2KleinInpaintPipeline", "Flux2Klein", 4, 1024, True),
    "sdxl": _Kind("StableDiffusionXLInpaintPipeline", "StableDiffusionXL", 25, 1024, False),
}


class Diffusion:
    """See :class:`scenegen.outpaint.base.Outpainter`. Same seed and machine, same picture."""

    kind = "sdxl"

    def __init__(self, source: str | None = None, prompt: str | None = None) -> None:
        """Load the pipeline.

        Args:
            source: A name of ``scenegen.models.HUB_MODELS``, OWNER/NAME on the hub, or a folder;
                the family's own when left out.
            prompt: What to paint, in words.

        Raises:
            SceneError: The files are missing, or not such a pipeline.
        """
        self.prompt = prompt or PROMPT
        source = source or self.kind
        self.pipeline = _load(hub_folder(source), self.kind)
        say_licence(source)

    def fill(
        self,
        rgb: Float[Tensor, "h w 3"],
        known: Bool[Tensor, "h w"],
        camera: Camera | None,
        depth: Float[Tensor, "h w"] | None,
        references: Sequence[Reference],
        seed: int,
    ) -> Float[Tensor, "h w 3"]:
        kind, (height, width) = _KINDS[self.kind], known.shape
        zoom = kind.side / max(height, width)
        rows, columns = (max(1, round(zoom * n / MULTIPLE)) * MULTIPLE for n in (height, width))
        hole = _enlarged((~known).float()[..., None].expand(-1, -1, 3), rows, columns)[..., :1] > 0
        options: dict[str, Any] = {
            "prompt": self.prompt,
            "image": _picture(_enlarged(rgb, rows, columns)),
            "mask_image": _picture(hole.float().expand(-1, -1, 3)).convert("L"),
            "height": rows,
            "width": columns,
            "num_inference_steps": kind.steps,
            "strength": 1.0,
            "generator": torch.Generator("cpu").manual_seed(seed),
            "output_type": "np",
        }
        if kind.reference and references:
            options["image_reference"] = _picture(references[0].rgb)
        painted = torch.from_numpy(np.asarray(self.pipeline(**options).images[0])).float()
        return _enlarged(torch.nan_to_num(painted), height, width).clamp(0.0, 1.0)


class Flux(Diffusion):
    """FLUX.2 klein (Black Forest Labs): few steps, and looks at the best retrieved view."""

    kind = "flux"


class Sdxl(Diffusion):
    """Stable Diffusion XL, inpainting (Podell et al. 2023)."""

    kind = "sdxl"


def _enlarged(image: Float[Tensor, "h w 3"], height: int, width: int) -> Tensor:
    planes = image.permute(2, 0, 1)[None]
    resized = interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0)


def _picture(image: Float[Tensor, "h w 3"]) -> Image.Image:
    return Image.fromarray((image * 255).round().clamp(0, 255).byte().contiguous().numpy())


@lru_cache(maxsize=1)
def _load(folder: Path, kind: str) -> Any:
    """The pipeline, ready to paint. Kept: each view of a world needs it."""
    what = f"{folder} does not hold a {kind} inpainting model"
    fix = "name the folder of such a model, with model_index.json and *.safetensors"
    try:
        name = str(json.loads((folder / "model_index.json").read_text())["_class_name"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SceneError(what, why=f"its settings cannot be read: {error}", fix=fix) from error
    if not name.startswith(_KINDS[kind].family):
        raise SceneError(what, why=f"its model_index.json describes {name}", fix=fix)
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise SceneError(what, why="it holds no safetensors file; pickles are not opened", fix=fix)
    for file in files:
        check_blob(file)
    import diffusers
    from diffusers.utils import logging as theirs

    level = theirs.get_verbosity()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    cuda = torch.cuda.is_available()
    try:
        pipeline = getattr(diffusers, _KINDS[kind].pipeline).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=torch.bfloat16 if cuda else torch.float32,
        )
    except Exception as error:  # a damaged file surfaces as errors of many kinds
        raise SceneError(what, why=first_line(error), fix=fix) from error
    finally:
        theirs.set_verbosity(level)
        theirs.enable_progress_bar()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if cuda else "cpu")
