"""MI-GAN (Sargsyan et al. 2023) in torch, with side inputs that start without effect.

An encoder halves the picture down to a 128th, a synthesis doubles it back, adding the encoder's
features and a fixed noise at each level; all convolutions are separable, nothing is normalised.
The original multiplies by sqrt(2) after each activation and clamps at 256: here the factor is part
of the weights, which is the same (the activation is positively homogeneous), and nothing is
clamped.

The side branch sees what the original cannot: the geometry (:mod:`scenegen.outpaint.sides`). Its
last convolutions start at zero, so that an untrained branch changes nothing. What past views show
needs no input of its own: it is part of the known picture.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, pad

from renderers import SceneError
from scenegen.models.onnx import read_graph
from scenegen.outpaint.parts import BELOW, BESIDE, Part

LEVELS = (512, 256, 128, 64, 32, 16, 8, 4)
"""Names of the levels: their side for a picture of 512 pixels."""
DEEPEST = 128
"""Sides of pictures are multiples of this."""
WIDTH = 512
"""Channels from level 64 on; each level above has half as many."""
SIDE_INPUTS = 8
"""Channels of the side inputs: log depth, whether that is known, normals (3), rays (3)."""
SIDE_LEVELS = {512: 16, 256: 24, 128: 32, 64: 48, 32: 64}
"""Levels that the side branch reaches, and its channels there."""
SLOPE = 0.2
"""Of the activation, below zero."""


@dataclass(frozen=True)
class Layout:
    """Size of the network: what a file of weights says of itself."""

    width: int = WIDTH
    """Channels of the deep levels: those of the published network, or few for tests."""

    def channels(self, level: int) -> int:
        """Channels at a level."""
        return min(self.width, self.width * 64 // level)


def activated(x: Tensor) -> Tensor:
    """The activation, without its factor, in place: it needs only its result to differentiate."""
    return leaky_relu(x, SLOPE, inplace=True)


def doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c _ _"]:
    """Twice the size, by the filter [1 3 3 1] / 4 in both directions, on zeros beyond the border.

    That is bilinear interpolation.
    """
    return interpolate(pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2]


class Separable(nn.Module):
    """Convolution of each channel, activation, mixture of channels, activation."""

    noise: Tensor | None
    filter: Tensor | None

    def __init__(self, inputs: int, outputs: int, change: str = "", noise: int = 0) -> None:
        """Build.

        Args:
            inputs: Channels that come in.
            outputs: Channels that go out.
            change: "halve" or "double" the size, or neither.
            noise: Side of the noise that is added, or 0 for none.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.change = change
        self.register_buffer("noise", torch.zeros(noise, noise) if noise else None)
        self.register_buffer("filter", _low_pass() if change == "halve" else None)

    def forward(
        self, x: Float[Tensor, "b _ _ _"], part: Part | None = None, place: Part | None = None
    ) -> Float[Tensor, "b _ _ _"]:
        """What it makes of one part of a level; of all that there is, if none is named.

        Args:
            x: What comes in.
            part: What is to come out.
            place: The part that ``x`` covers, doubled where that is the change.
        """
        x = activated(self.conv1(x))
        if self.filter is not None:
            weight = self.filter.to(x.dtype).expand(x.shape[1], 1, 4, 4)
            x = conv2d(x, weight, stride=2, padding=1, groups=x.shape[1])
        x = self.conv2(x)
        if self.change == "double":
            x = doubled(x)
        part, place = part or Part.whole(x), place or Part.whole(x)
        x = part.cut(x, place)
        if self.noise is not None:
            x += _tiled(self.noise, part).to(x.dtype)
        return activated(x)


def _tiled(noise: Float[Tensor, "s s"], part: Part) -> Float[Tensor, "_ _"]:
    """The noise of a part: larger pictures repeat it."""
    side = noise.shape[0]
    tiled = noise.repeat(math.ceil(part.bottom / side), math.ceil(part.right / side))
    return tiled[part.top : part.bottom, part.left : part.right]


class Encoder(nn.Module):
    """One level on the way down."""

    def __init__(self, level: int, layout: Layout) -> None:
        super().__init__()
        here = layout.channels(level)
        deepest = level == LEVELS[-1]
        below = here if deepest else layout.channels(level // 2)
        self.fromrgb = nn.Conv2d(4, here, 1) if level == LEVELS[0] else None
        self.conv1 = Separable(here, here)
        self.conv2 = Separable(here, below, "" if deepest else "halve")

    def forward(self, x: Tensor, kept: Part) -> tuple[Tensor, Tensor]:
        """What goes to the level below, and the features of a part of this one."""
        whole, lower, features = Part.whole(x), [], []
        for strip in whole.strips(self.conv1.conv2.out_channels):
            near = strip.grown(BESIDE, whole)
            here = near.cut(x, whole)
            if self.fromrgb is not None:
                here = activated(self.fromrgb(here))
            here = self.conv1(here)
            below = self.conv2(here)
            if self.conv2.change:
                lower.append(strip.halved().cut(below, near.halved()))
            else:
                lower.append(strip.cut(below, near))
            features.append(kept.meeting(strip).cut(here, near))
        return _joined(lower), _joined(features)


class Synthesis(nn.Module):
    """One level on the way up."""

    def __init__(self, level: int, layout: Layout) -> None:
        super().__init__()
        here = layout.channels(level)
        deepest = level == LEVELS[-1]
        below = here if deepest else layout.channels(level // 2)
        noise = 0 if deepest else level
        self.conv1 = Separable(below, here, "" if deepest else "double", noise)
        self.conv2 = Separable(here, here, noise=noise)
        self.torgb = nn.Conv2d(here, 3, 1)

    def forward(
        self,
        x: Tensor,
        image: Tensor | None,
        below: Part,
        features: Tensor,
        side: Tensor | None,
        part: Part,
    ) -> tuple[Tensor, Tensor]:
        """What goes to the level above, and the picture so far.

        Args:
            x: What comes from the level below, of a part of that level.
            image: The picture that the level below has drawn there.
            below: That part.
            features: The encoder's, of a part of this level.
            side: What is added to them.
            part: That part: the one that is made.
        """
        made, drawn = [], []
        for strip in part.strips(self.conv2.conv2.out_channels):
            near = strip.grown(1, part)
            under = near.halved().grown(BELOW, below) if self.conv1.change else below
            place = under.doubled() if self.conv1.change else below
            here = self.conv1(under.cut(x, below), near, place) + near.cut(features, part)
            if side is not None:
                here += near.cut(side, part)
            here = self.conv2(here, near, near)
            picture = self.torgb(here)
            if image is not None:
                picture += near.cut(doubled(under.cut(image, below)), place)
            made.append(strip.cut(here, near))
            drawn.append(strip.cut(picture, near))
        return _joined(made), _joined(drawn)


class SideBranch(nn.Module):
    """Features of the side inputs, one zero-initialised mixture per level."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.body, self.out = nn.ModuleDict(), nn.ModuleDict()
        inputs = SIDE_INPUTS + 4
        for level, width in SIDE_LEVELS.items():
            first = nn.Conv2d(inputs, width, 3, 1 if level == LEVELS[0] else 2, 1)
            second = nn.Conv2d(width, width, 3, padding=1)
            self.body[str(level)] = nn.Sequential(first, nn.SiLU(), second, nn.SiLU())
            self.out[str(level)] = _zero(nn.Conv2d(width, layout.channels(level), 1))
            inputs = width
        self.torgb = _zero(nn.Conv2d(SIDE_LEVELS[LEVELS[0]], 3, 1))

    def forward(
        self, x: Float[Tensor, "b _ h w"], parts: dict[int, Part]
    ) -> tuple[dict[int, Tensor], Tensor]:
        """What is added to a part of each level, and to the picture."""
        added, image = {}, x.new_zeros(())
        for level in SIDE_LEVELS:
            x = self.body[str(level)](x)
            here = parts[level].cut(x, Part.whole(x))
            added[level] = self.out[str(level)](here)
            if level == LEVELS[0]:
                image = self.torgb(here)
        return added, image


class OutpaintNetwork(nn.Module):
    """Fills pictures of any size whose sides are multiples of DEEPEST."""

    def __init__(self, layout: Layout = Layout()) -> None:
        super().__init__()
        self.layout = layout
        self.encoder = nn.ModuleDict({str(level): Encoder(level, layout) for level in LEVELS})
        self.synthesis = nn.ModuleDict({str(level): Synthesis(level, layout) for level in LEVELS})
        self.side = SideBranch(layout)

    def forward(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        known: Float[Tensor, "b 1 h w"],
        side: Float[Tensor, "b 8 h w"] | None = None,
        wanted: Part | None = None,
    ) -> Float[Tensor, "b 3 _ _"]:
        """Fill a batch.

        Args:
            rgb: Pictures, -1 to 1; what they hold where nothing is known does not matter.
            known: 1 where pixels are to be kept, 0 in the hole.
            side: See SIDE_INPUTS; without it, the network is the original.
            wanted: What is needed of the pictures; without it, all.

        Returns:
            That part of the pictures, about -1 to 1, near to the input where it is known.
        """
        x = packed = torch.cat([known - 0.5, rgb * known], dim=1)
        whole = Part.whole(packed)
        wanted = wanted or whole
        parts = _parts(wanted, whole)
        features: dict[int, Tensor] = {}
        for level in LEVELS:
            x, features[level] = self.encoder[str(level)](x, parts[level])
        added, extra = {}, None
        if side is not None:
            added, extra = self.side(torch.cat([packed, side], 1), parts)
        image, below = None, parts[LEVELS[-1]]
        for level in reversed(LEVELS):
            given = features.pop(level), added.get(level), parts[level]
            x, image = self.synthesis[str(level)](x, image, below, *given)
            below = parts[level]
        assert image is not None
        return wanted.cut(image if extra is None else image + extra, below)


def _parts(wanted: Part, whole: Part) -> dict[int, Part]:
    """What has to be made of each level."""
    parts, part = {}, wanted.grown(2, whole)
    for level in LEVELS:
        parts[level] = whole if level == LEVELS[-1] else part
        whole = whole.halved()
        part = part.halved().grown(BELOW, whole)
    return parts


def _joined(strips: list[Tensor]) -> Tensor:
    """One below the other."""
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)


def pretrained_network() -> OutpaintNetwork:
    """The network with the published weights (Places2), its side branch without effect.

    Raises:
        SceneError: The weights were not pulled, or are of another network.
    """
    nodes, weights = read_graph("migan", "MI-GAN")
    adds = {node.name: node for node in nodes if node.op_type == "Add"}
    same = {node.output[0]: node.input[0] for node in nodes if node.op_type == "Identity"}
    network = OutpaintNetwork()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.startswith("side."):
                continue
            theirs = re.sub(r"^(encoder|synthesis)\.", r"model.\1.b", name)
            if name.endswith(".noise"):
                add = adds[f"/{theirs.removesuffix('.noise').replace('.', '/')}/Add"]
                found = next((weights[key] for key in add.input if key in weights), None)
            elif name.endswith(".filter"):
                key = theirs.replace(".filter", ".downsample.filter.weight")
                found = weights.get(same.get(key, key))
                found = None if found is None else found[:1]
            else:
                found = weights.get(theirs)
            if found is None or found.shape != value.shape:
                raise SceneError(
                    "cannot use the weights of MI-GAN",
                    why=f"they hold nothing that fits {name}",
                    fix="`scenegen models pull migan` replaces them",
                )
            value.copy_(found)
        _fold(network)
    return network.eval()


def _fold(network: OutpaintNetwork) -> None:
    """Make the factor sqrt(2) of the original's activations part of the weights before them."""
    gain = 1.4142135381698608  # as the file has it
    scaled: list[Tensor] = []
    for part in network.modules():
        if isinstance(part, Encoder) and part.fromrgb is not None:
            scaled += part.fromrgb.parameters()
        if isinstance(part, Separable):
            scaled += [*part.conv1.parameters(), *part.conv2.parameters()]
            scaled += [] if part.noise is None else [part.noise]
    for value in scaled:
        value.mul_(gain)


def _low_pass() -> Float[Tensor, "1 1 4 4"]:
    """[1 3 3 1] / 8 in both directions."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(row, row)[None, None]


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
