"""FastDepth (Wofk et al. 2019) in torch: the second branch of the depth network.

It was trained on measured depth of real rooms, which the drawn rooms here are not. It errs
elsewhere than a head on DINOv2's tokens does, so both together are better than either.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from scenegen.fields import normalised
from scenegen.geometry.fastdepth import FARTHEST, NEAREST, SIDE
from scenegen.models.onnx import missing_graph, read_graph

SOURCE = ("fastdepth", "FastDepth")
"""Name of the pulled model, and what people call it."""
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
        # Its upsampling by repetition prints a grid, which a mean over three pixels takes out.
        smooth = avg_pool2d(disparity[:, None], 3, 1, 1, count_include_pad=False)
        size = (height, width)
        smooth = interpolate(smooth, size, mode="bilinear", antialias=True, align_corners=False)
        return normalised(smooth[:, 0], torch.ones_like(smooth[:, 0], dtype=torch.bool))


def missing_branch() -> str | None:
    """Why the pretrained branch cannot be read here, or None when it can. Cheap."""
    return missing_graph(*SOURCE)


def pretrained_branch() -> FastBranch:
    """FastDepth with the weights of the pulled file, verified by its sha256.

    Raises:
        SceneError: The file or the package ``onnx`` is missing, or it is another file.
    """
    branch = FastBranch()
    convolutions = [m for m in branch.modules() if isinstance(m, nn.Conv2d)]  # in running order
    with torch.no_grad():
        for layer, (weight, bias) in zip(convolutions, _folded(*read_graph(*SOURCE)), strict=True):
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return branch.eval()


def _folded(nodes: list[Any], found: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution, its batch normalisation folded in."""
    layers, weight = [], torch.empty(0)
    for node in nodes:
        if node.op_type == "Conv":
            weight = found[node.input[1]]
        elif node.op_type == "BatchNormalization":
            gain, shift, mean, variance = (found[name] for name in node.input[1:])
            epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
            gain = gain / (variance + epsilon).sqrt()
            layers.append((weight * gain[:, None, None, None], shift - mean * gain))
    return layers
