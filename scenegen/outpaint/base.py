"""The contract of every outpainter, and the table of those that exist."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Backend, Camera, SceneError, choose
from scenegen import models


@runtime_checkable  # the test-time type checker needs it
class Reference(Protocol):
    """A past view that shows the same place: what :class:`spatial_memory.View` offers."""

    @property
    def rgb(self) -> Float[Tensor, "h w 3"]:
        """Its picture, sRGB, 0 to 1."""
        ...

    @property
    def known(self) -> Bool[Tensor, "h w"]:
        """Its pixels that hold."""
        ...

    @property
    def depth(self) -> Float[Tensor, "h w"]:
        """Its depth, metres; NaN unknown, +inf sky."""
        ...

    @property
    def camera(self) -> Camera:
        """Where it was taken from."""
        ...


@runtime_checkable  # the test-time type checker needs it
class Outpainter(Protocol):
    """Fills the unknown part of a view.

    What comes back at known pixels is discarded; what comes back as NaN stays unknown.
    """

    def fill(
        self,
        rgb: Float[Tensor, "h w 3"],
        known: Bool[Tensor, "h w"],
        camera: Camera | None,
        depth: Float[Tensor, "h w"] | None,
        references: Sequence[Reference],
        seed: int,
    ) -> Float[Tensor, "h w 3"]:
        """The whole view, 0 to 1. Same input and seed, same picture.

        Args:
            rgb: The view, what past views show of it included; blurred colours in its hole.
            known: Its pixels that hold.
            camera: Its camera.
            depth: Its depth, metres: that of past views included; NaN where nothing is known.
            references: The past views that were believed, best first.
            seed: Source of the random choices.
        """
        ...


def _not_shipped() -> str | None:
    path = models.shipped_path("outpaint")
    return (
        None if path.is_file() else f"its weights, which come with the install, are gone ({path})"
    )


def _no_migan() -> str | None:
    return None if models.is_present("migan") else "its weights (migan) are not on this machine"


def _no_patchmatch() -> str | None:
    if importlib.util.find_spec("patchmatch") is None:
        return "the package pypatchmatch is not installed"
    return None


def _no_diffusers(source: str) -> str | None:
    if importlib.util.find_spec("diffusers") is None:
        return "the package diffusers is not installed"
    return models.hub_missing(source)


def _too_slow(source: str) -> str | None:
    """Without a GPU a view takes minutes, so nobody is given that unasked."""
    if (why := _no_diffusers(source)) is not None:
        return why
    import torch

    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def _hub_fix(source: str) -> str:
    return (
        f"run `pip install 'scenegen-worlds[hub]'` and `scenegen models pull {source}`; without an"
        f" NVIDIA GPU it takes minutes a view, and --outpaint NAME:{source} to insist"
    )


SOURCED = ("flux", "sdxl")
"""Backends that take ``NAME:SOURCE``, with weights of the user's choice, and a prompt."""
OUTPAINTERS: dict[str, Backend] = {  # best first
    "flux": Backend(
        "scenegen.outpaint.diffusion:Flux",
        lambda: _too_slow("flux"),
        _hub_fix("flux"),
        "hub model, FLUX.2 klein: any hole, told by a prompt, shown a remembered view",
    ),
    "sdxl": Backend(
        "scenegen.outpaint.diffusion:Sdxl",
        lambda: _too_slow("sdxl"),
        _hub_fix("sdxl"),
        "hub model, Stable Diffusion XL: any hole, told by a prompt",
    ),
    "own": Backend(
        "scenegen.outpaint.own:OwnNetwork",
        _not_shipped,
        "reinstall scenegen-worlds",
        "this project's network, from MI-GAN: surfaces in narrow holes; comes with the install",
    ),
    "migan": Backend(
        "scenegen.outpaint.migan:MiGan",
        _no_migan,
        "run `scenegen models pull migan`, or use --outpaint patch",
        "small generative network (Places2): invents plausible surfaces in narrow holes",
    ),
    "patch": Backend(
        "scenegen.outpaint.patch:PatchMatch",
        _no_patchmatch,
        "pip install pypatchmatch",
        "no weights: copies patches of the view and of the retrieved views",
    ),
    "none": Backend(
        "scenegen.outpaint.honest:Nothing",
        lambda: None,
        "",
        "invents nothing: what was never seen stays unknown",
    ),
}


def choose_outpainter(
    name: str = "auto", prompt: str | None = None
) -> tuple[str, Callable[[], Outpainter]]:
    """Load an outpainter.

    Args:
        name: "auto"; a name of OUTPAINTERS; or ``NAME:SOURCE`` for those of SOURCED, with other
            weights: a name of ``models.HUB_MODELS``, OWNER/NAME on the hub, or a folder.
        prompt: What to paint, in words, for those of SOURCED.

    Returns:
        The full name, with folders absolute, and what makes the outpainter.

    Raises:
        SceneError: The name is unknown, that backend cannot run here, or takes no prompt.
    """
    backend, colon, source = name.partition(":")
    if not colon:
        full, make = choose("outpaint", OUTPAINTERS, name)
    else:
        if backend not in SOURCED or not source:
            raise SceneError(
                f"unknown outpaint backend {name!r}",
                why=f"only these take weights of your choice: {', '.join(SOURCED)}",
                fix=f"give --outpaint {SOURCED[0]}:FOLDER, or another name",
            )
        folder = Path(source).expanduser()
        if source not in models.HUB_MODELS and folder.is_dir():
            source = str(folder.resolve())
        entry, full = OUTPAINTERS[backend], f"{backend}:{source}"
        missing = partial(_no_diffusers, source)
        chosen = Backend(entry.target, missing, _hub_fix(source), entry.about)
        make = partial(choose("outpaint", {full: chosen}, full)[1], source)
    if full.partition(":")[0] in SOURCED:
        return full, partial(make, prompt=prompt)
    if prompt:
        raise SceneError(
            f"outpaint backend {full!r} takes no prompt",
            why="it was not trained with words",
            fix=f"leave --prompt out, or use one of: {', '.join(SOURCED)}",
        )
    return full, make
