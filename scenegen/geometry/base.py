"""The contract of every depth estimator, and the table of those that exist."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Backend, SceneError, check_shapes, choose
from scenegen import models

EYE_HEIGHT = 1.6
"""Height of the camera above the ground, in metres, where nothing says otherwise."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """What is known of the space behind one image."""

    depth: Float[Tensor, "h w"]
    """z in the camera frame, metres; +inf in the sky."""
    normals: Float[Tensor, "h w 3"]
    """Unit surface normals in the camera frame, towards the camera; (0, 0, -1) in the sky."""
    sky: Bool[Tensor, "h w"]
    """Pixels that show the sky."""
    px_from_cam: Float[Tensor, "3 3"]
    """Intrinsics, in pixels."""
    confidence: Float[Tensor, "h w"]
    """How far the depth can be trusted, 0 to 1."""
    scale: str
    """Where the metres come from, in plain words."""

    def __post_init__(self) -> None:
        check_shapes(
            self,
            depth=("h", "w"),
            normals=("h", "w", 3),
            sky=("h", "w"),
            px_from_cam=(3, 3),
            confidence=("h", "w"),
        )


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a depth estimator answers."""

    depth: Float[Tensor, "h w"]
    """z in the camera frame, metres; finite and positive everywhere, in the sky too."""
    confidence: Float[Tensor, "h w"]
    """How far the depth can be trusted, 0 to 1."""
    scale: str
    """Where the metres come from, in plain words."""
    sky: Bool[Tensor, "h w"]
    """The sky it was told of, or what it saw itself."""

    def __post_init__(self) -> None:
        check_shapes(self, depth=("h", "w"), confidence=("h", "w"), sky=("h", "w"))


@runtime_checkable  # the test-time type checker needs it
class DepthEstimator(Protocol):
    """Depth from one image. Sky, edges and normals are found around it, alike for all."""

    def depth(
        self,
        rgb: Float[Tensor, "h w 3"],
        sky: Bool[Tensor, "h w"],
        px_from_cam: Float[Tensor, "3 3"],
        eye_height: float,
    ) -> Estimate:
        """Estimate depth.

        Args:
            rgb: Image, sRGB, 0 to 1.
            sky: Its sky, where depth means nothing.
            px_from_cam: Intrinsics, in pixels.
            eye_height: Height of the camera above the ground, in metres.
        """
        ...


def _needs(model: str) -> str | None:
    return None if models.is_present(model) else f"its weights ({model}) are not on this machine"


def _not_shipped() -> str | None:
    path = models.shipped_path("depth")
    return (
        None if path.is_file() else f"its weights, which come with the install, are gone ({path})"
    )


@dataclass(frozen=True)
class _Hub:
    """What a backend of the hub needs beside its weights."""

    packages: tuple[str, ...]
    """Names by which it imports them."""
    install: str
    """How to get them."""

    def missing(self, source: str) -> str | None:
        """Why it cannot run here with weights from ``source``, or None when it can."""
        lacking = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if lacking:
            return f"no package {' or '.join(lacking)} is installed"
        return models.hub_missing(source)

    def fix(self, source: str) -> str:
        """What to do about it."""
        return f"run `{self.install}` and `scenegen models pull {source}`, or use --depth auto"


_MOGE = _Hub(("moge", "utils3d"), "pip install --no-deps dlr-moge dlr-utils3d dlr-pipeline")
_ANYTHING = _Hub(("transformers",), "pip install 'scenegen-worlds[hub]'")
SOURCED = {"moge": _MOGE, "depth-anything": _ANYTHING}
"""Backends that take ``NAME:SOURCE``, with weights of the user's choice."""
DEPTH_BACKENDS: dict[str, Backend] = {  # best first
    "moge": Backend(
        "scenegen.geometry.moge:MoGe",
        lambda: _MOGE.missing("moge"),
        _MOGE.fix("moge"),
        "hub model: metric points of any scene",
    ),
    "depth-anything": Backend(
        "scenegen.geometry.depth_anything:DepthAnything",
        lambda: _ANYTHING.missing("depth-anything"),
        _ANYTHING.fix("depth-anything"),
        "hub model: relative depth of any scene; metres from the ground it sees",
    ),
    "dpt": Backend(
        "scenegen.geometry.trained:TrainedDepth",
        _not_shipped,
        "reinstall scenegen-worlds, or use another --depth",
        "our own network, shipped: relative depth of any scene; metres from the ground it sees",
    ),
    "fastdepth": Backend(
        "scenegen.geometry.fastdepth:FastDepth",
        lambda: _needs("fastdepth"),
        "run `scenegen models pull fastdepth`, or use --depth prior",
        "small network trained on rooms (NYU): right layout indoors, soft; poor outdoors",
    ),
    "prior": Backend(
        "scenegen.geometry.prior:PriorDepth",
        lambda: None,
        "",
        "no weights: a ground plane and upright surfaces that stand on it; crude",
    ),
}


def choose_depth(name: str = "auto") -> tuple[str, Callable[[], DepthEstimator]]:
    """Load a depth backend.

    Args:
        name: "auto"; a name of DEPTH_BACKENDS; or ``NAME:SOURCE`` for those of SOURCED, with other
            weights: a name of ``models.HUB_MODELS``, OWNER/NAME on the hub, or a folder.

    Returns:
        The full name, with folders absolute, and what makes the estimator.

    Raises:
        SceneError: The name is unknown, or that backend cannot run here.
    """
    backend, colon, source = name.partition(":")
    if not colon:
        return choose("depth", DEPTH_BACKENDS, name)
    if backend not in SOURCED or not source:
        raise SceneError(
            f"unknown depth backend {name!r}",
            why=f"only these take weights of your choice: {', '.join(SOURCED)}",
            fix=f"give --depth {next(iter(SOURCED))}:FOLDER, or another name",
        )
    folder = Path(source).expanduser()
    if source not in models.HUB_MODELS and folder.is_dir():
        source = str(folder.resolve())
    entry, needs = DEPTH_BACKENDS[backend], SOURCED[backend]
    chosen = Backend(entry.target, partial(needs.missing, source), needs.fix(source), entry.about)
    full = f"{backend}:{source}"
    estimator = choose("depth", {full: chosen}, full)[1]
    return full, partial(estimator, source)
