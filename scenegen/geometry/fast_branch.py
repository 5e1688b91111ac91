"""FastDepth (Wofk et al. 2019) in torch: the second branch of the depth network.

It was trained on measured depth of real rooms, which the drawn rooms here are not. It errs
elsewhere than a head on DINOv2's tokens does, so both together are better than either.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from renderers import SceneError
from scenegen import models

SIDE = 224
"""The network's input is a square of this many pixels, squeezed from any shape."""
STEM = 16
"""Channels after the first convolution."""
ENCODER = (
    *((56, 1), (88, 2), (120, 1), (144, 2), (256, 1), (408, 2), (376, 1)),
    *((272, 1), (288, 1), (296, 1), (328, 1), (480, 2), (512, 1)),
)
"""Channels and stride of each separable layer; pruned by its authors, so none is round."""
DECODER = (200, 256, 120, 56, 16)
"""Channels of the layers that double the size."""
SKIPS = {1: 4, 2: 2, 3: 0}
"""By layer of the decoder: the layer of the encoder that is added to its doubled output."""
NEAREST, FARTHEST = 0.3, 12.0
"""Range of its answers that its training data holds, in metres."""
LEAST, MOST = -5.0, 8.0
"""Range to which normalised disparity is clamped, in mean absolute deviations."""


def square_image(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 224 224"]:
    """The image as this network takes it."""
    return interpolate(rgb, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


class Separable(nn.Module):
    """A depthwise convolution and one of single pixels, batch normalisation folded into both."""

    def __init__(self, channels: int, out: int, side: int, stride: int, ceiling: float) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, side, stride, side // 2, groups=channels)
        self.mix = nn.Conv2d(channels, out, 1)
        self.ceiling = ceiling
        """Activations are cut to 0 to this."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        return self.mix(self.spatial(x).clamp(0, self.ceiling)).clamp(0, self.ceiling)


class FastBranch(nn.Module):
    """The network, up to its answer as a plane that other images can be compared with."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, 2, 1)
        widths = (STEM, *(out for out, _ in ENCODER))
        strides = [stride for _, stride in ENCODER]
        self.encoder = nn.ModuleList(
            Separable(a, b, 3, stride, 6.0)
            for (a, b), stride in zip(pairwise(widths), strides, strict=True)
        )
        widths = (widths[-1], *DECODER)
        self.decoder = nn.ModuleList(Separable(a, b, 5, 1, torch.inf) for a, b in pairwise(widths))
        self.last = nn.Conv2d(DECODER[-1], 1, 1)

    def depth(self, square: Float[Tensor, "b 3 224 224"]) -> Float[Tensor, "b 224 224"]:
        """Metric depth of rooms, as it learnt it, for a lens like that of its training."""
        x = self.stem(square.contiguous(memory_format=torch.channels_last)).clamp(0, 6.0)
        kept = []
        for layer in self.encoder:
            x = layer(x)
            kept.append(x)
        for index, layer in enumerate(self.decoder):
            x = interpolate(layer(x), scale_factor=2.0, mode="nearest")
            if index in SKIPS:
                x = x + kept[SKIPS[index]]
        return relu(self.last(x))[:, 0]

    def forward(
        self, square: Float[Tensor, "b 3 224 224"], height: int, width: int
    ) -> Float[Tensor, "b h w"]:
        """Normalised disparity at the given size; images from :func:`square_image`."""
        disparity = 1.0 / self.depth(square).clamp(NEAREST, FARTHEST)
        # Its upsampling by repetition prints a grid, which a mean over two pixels takes out.
        smooth = avg_pool2d(disparity[:, None], 3, 1, 1, count_include_pad=False)
        size = (height, width)
        smooth = interpolate(smooth, size, mode="bilinear", antialias=True, align_corners=False)
        smooth = smooth[:, 0]
        return normalised(smooth, smooth > 0)


def normalised(
    disparity: Float[Tensor, "b h w"], surfaces: Bool[Tensor, "b h w"]
) -> Float[Tensor, "b h w"]:
    """Disparity minus the median of the surfaces, over their mean absolute deviation, clamped.

    Args:
        disparity: 1/z, or what is linear in it.
        surfaces: What is not sky. The sky does not count, but is mapped as well.
    """
    flat = disparity.flatten(1)
    surface = torch.where(surfaces.flatten(1), flat, torch.nan)
    middle = torch.nan_to_num(surface.nanmedian(1, keepdim=True).values)
    spread = torch.nan_to_num((surface - middle).abs().nanmean(1, keepdim=True)) + 1e-6
    return ((flat - middle) / spread).clamp(LEAST, MOST).view_as(disparity)


def missing_branch() -> str | None:
    """Why the pretrained branch cannot be read here, or None when it can. Cheap."""
    if not models.is_present("fastdepth"):
        return "the weights of FastDepth (fastdepth) are not on this machine"
    if importlib.util.find_spec("onnx") is None:
        return "the package onnx, which reads them, is not installed"
    return None


def pretrained_branch() -> FastBranch:
    """FastDepth with the weights of the pulled file, verified by its sha256.

    Raises:
        SceneError: The file or the package ``onnx`` is missing, or it is another file.
    """
    path = models.model_path("fastdepth")
    if why := missing_branch():
        raise SceneError(
            "cannot read FastDepth", why=why, fix="pip install 'scenegen-worlds[training]'"
        )
    import onnx

    branch = FastBranch()
    convolutions = [m for m in branch.modules() if isinstance(m, nn.Conv2d)]  # in running order
    with torch.no_grad():
        for layer, (weight, bias) in zip(convolutions, _folded(onnx.load(path).graph), strict=True):
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return branch.eval()


def _folded(graph: Any) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution of the graph, its batch normalisation folded in."""
    from onnx import numpy_helper

    found = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    layers, weight = [], torch.empty(0)
    for node in graph.node:
        if node.op_type == "Conv":
            weight = found[node.input[1]]
        elif node.op_type == "BatchNormalization":
            gain, shift, mean, variance = (found[name] for name in node.input[1:])
            epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
            gain = gain / (variance + epsilon).sqrt()
            layers.append((weight * gain[:, None, None, None], shift - mean * gain))
    return layers
