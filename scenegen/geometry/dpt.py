"""The depth network: a ViT backbone under a DPT head in the layout of Depth Anything Small.

Vision Transformers for Dense Prediction (Ranftl et al. 2021): four levels of tokens become maps
of four sizes, fused from coarse to fine. Added here: a linear base that is fitted in closed form
before training, so that the head only learns what it gets wrong; the image itself beside the
finest maps, since tokens of 14 pixels hold no outlines; heads for more than disparity; and a
second branch, trained on its own, whose answer is averaged in where the scene is a room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from scenegen.fields import normalised
from scenegen.geometry.dinov2 import PATCH, DinoV2
from scenegen.geometry.fast_branch import FastBranch, square_image

NECK = (48, 96, 192, 384)
"""Channels of the four maps, fine to coarse."""
SCALE = 8
"""Rows and columns of the output per row and column of tokens."""
TOKEN_NOISE = 0.4
"""Standard deviation of the noise on normalised tokens in training. A ridge of 0.2 per token, the
square of about this, was the best for the base on photographs."""
FAST_SHARE = 0.5
"""Weight of the second branch in a room; outdoors it has none."""
PLACE_LEVEL = 2
"""Index of the level whose class token tells rooms from the outdoors: of the four, this one holds
best on photographs when drawn frames alone have taught it."""
PLACES = 6
"""Numbers that tell the linear base where a token is: a quadratic in x and y."""
USUAL_FOCAL = 0.85
"""Focal length over the longer side of a usual photograph (28 mm equivalent, 4:3)."""


@dataclass(frozen=True)
class DepthLayout:
    """Sizes of a depth network; the defaults are those of the network that is trained for CPUs."""

    width: int = 384
    """Length of a token."""
    heads: int = 6
    """Attention heads of the backbone."""
    depth: int = 12
    """Blocks of the backbone."""
    positions: int = 37
    """Side of the grid that positions were learnt on, in tokens."""
    fusion: int = 32
    """Channels in which the levels are fused."""
    head: int = 16
    """Channels at the size of the output, where each of them costs most."""

    def backbone(self) -> DinoV2:
        """An untrained backbone of these sizes."""
        return DinoV2(self.width, self.heads, self.depth, self.positions)


@dataclass(frozen=True, eq=False)
class DepthPrediction:
    """What the network says of a batch of images, on a grid of 8 x 8 cells per token."""

    disparity: Float[Tensor, "b h w"]
    """1/z of the surface up to a scale and a shift per image; larger is nearer."""
    sky: Float[Tensor, "b h w"]
    """Logit of the sky's probability."""
    normals: Float[Tensor, "b 3 h w"]
    """Unit surface normals in the camera frame, towards the camera."""
    confidence: Float[Tensor, "b h w"]
    """Logit of how far the disparity can be trusted."""
    log_focal: Float[Tensor, " b"]
    """Natural logarithm of the focal length over the longer side of the image."""
    indoors: Float[Tensor, " b"]
    """Logit of the image showing a room."""


class Refine(nn.Module):
    """Residual unit of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.convolution2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.convolution2(relu(self.convolution1(relu(x))))


class Fuse(nn.Module):
    """Adds a finer map to what came from coarser ones, and doubles the size."""

    def __init__(self, channels: int, out: int, first: bool) -> None:
        super().__init__()
        self.refine1 = None if first else Refine(channels)
        self.refine2 = Refine(channels)
        self.projection = nn.Conv2d(channels, out, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Tensor | None, size: tuple[int, int]
    ) -> Float[Tensor, "b out _ _"]:
        if self.refine1 is not None and skip is not None:
            x = x + self.refine1(skip)
        x = self.projection(self.refine2(x))  # before it grows: the same, at a quarter of the work
        return interpolate(x, size, mode="bilinear", align_corners=True)


class DepthHead(nn.Module):
    """Four levels of tokens and the image to six planes, SCALE times as fine as the tokens."""

    def __init__(self, layout: DepthLayout) -> None:
        super().__init__()
        width, fusion, fine = layout.width, layout.fusion, layout.head
        self.project = nn.ModuleList(nn.Conv2d(width, size, 1) for size in NECK)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(NECK[0], NECK[0], 4, 4),
                nn.ConvTranspose2d(NECK[1], NECK[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(NECK[3], NECK[3], 3, stride=2, padding=1),
            ]
        )
        self.neck = nn.ModuleList(
            nn.Conv2d(size, fusion, 3, padding=1, bias=False) for size in NECK
        )
        self.fuse = nn.ModuleList(
            Fuse(fusion, fusion if level else fine, first=level == 3) for level in range(4)
        )
        self.outlines = nn.Conv2d(3, fine, 3, padding=1)
        self.outlines_coarse = nn.Conv2d(fine, fusion, 3, stride=2, padding=1)
        self.outlines_fine = nn.Conv2d(fine, fine, 3, padding=1)
        self.out1 = nn.Conv2d(fine, fine, 3, padding=1)
        self.out2 = nn.Conv2d(fine, fine, 3, padding=1)
        self.out3 = nn.Conv2d(fine, 6, 1)
        # He et al. 2015: torch's own start fades over these layers, and the last would idle long.
        for layer in (self.outlines, self.outlines_fine, self.out1, self.out2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(self.out3.weight)  # training starts from the linear base
        assert self.out3.bias is not None
        with torch.no_grad():
            self.out3.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -1.0, 0.0]))

    def forward(
        self, grids: list[Float[Tensor, "b c r s"]], image: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 6 h w"]:
        maps = [
            neck(resize(project(grid)))
            for neck, resize, project, grid in zip(
                self.neck, self.resize, self.project, grids, strict=True
            )
        ]
        image = image.contiguous(memory_format=torch.channels_last)
        edges = relu(self.outlines(image - 0.5))
        maps[0] = maps[0] + self.outlines_coarse(edges)
        x = maps[3]
        for level in (3, 2, 1, 0):
            finer = maps[level - 1] if level else edges
            skip = maps[level] if level < 3 else None
            x = self.fuse[level](x, skip, (finer.shape[2], finer.shape[3]))
        x = relu(x + self.outlines_fine(edges))
        return self.out3(relu(self.out2(relu(self.out1(x)))))


class DepthNetwork(nn.Module):
    """Both branches, linear base and head. Differentiable in its weights and in the image."""

    def __init__(
        self,
        layout: DepthLayout,
        backbone: DinoV2 | None = None,
        fast: FastBranch | None = None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.backbone = backbone or layout.backbone()
        self.fast = fast or FastBranch()
        self.base = nn.Linear(4 * layout.width + PLACES, 2)
        """Normalised disparity and sky logit of a token; fitted, not trained."""
        self.head = DepthHead(layout)
        # Tokens are rows of channels; the head runs 1.4 times as fast in this order, and the other
        # branch four times.
        for value in (*self.head.parameters(), *self.fast.parameters()):
            if value.ndim == 4:
                value.data = value.data.contiguous(memory_format=torch.channels_last)
        self.room = nn.Linear(layout.width, 1)
        """Whether the whole image shows a room; fitted, not trained."""
        nn.init.zeros_(self.room.weight)
        nn.init.zeros_(self.room.bias)
        # Of the whole image: its focal length.
        self.lens = nn.Sequential(nn.Linear(2 * layout.width, 64), nn.GELU(), nn.Linear(64, 1))
        last = self.lens[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.fill_(math.log(USUAL_FOCAL))

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> DepthPrediction:
        """Images (sRGB, 0 to 1, sides multiples of 14) to predictions on the 8/14 grid."""
        rows, columns = rgb.shape[2] // PATCH, rgb.shape[3] // PATCH
        said = self.decode(self.backbone(rgb), outline_image(rgb, rows, columns))
        fast = self.fast(square_image(rgb), SCALE * rows, SCALE * columns)
        return replace(said, disparity=fuse(said, fast))

    def decode(
        self,
        levels: list[Float[Tensor, "b n c"]],
        image: Float[Tensor, "b 3 h w"],
        noise: torch.Generator | None = None,
    ) -> DepthPrediction:
        """Predictions from tokens that may come from a cache, without the second branch.

        Args:
            levels: What the backbone returned.
            image: The image at the size of the output, from :func:`outline_image`.
            noise: Source of noise on the tokens, in training: drawn scenes differ from
                photographs, and what holds under noise holds there better.
        """
        rows, columns = image.shape[2] // SCALE, image.shape[3] // SCALE
        levels = [_noisy(self.backbone.norm(level), noise) for level in levels]
        base = self._base(levels, rows, columns)
        grids = [level[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)) for level in levels]
        planes = self.head(grids, image)
        summary = torch.cat([levels[3][:, 0], levels[3][:, 1:].mean(1)], dim=1)
        return DepthPrediction(
            disparity=(base[:, 0] + planes[:, 0]).float(),
            sky=(base[:, 1] + planes[:, 1]).float(),
            normals=nn.functional.normalize(planes[:, 2:5].float(), dim=1),
            confidence=planes[:, 5].float(),
            log_focal=self.lens(summary)[:, 0].float(),
            indoors=self.room(levels[PLACE_LEVEL][:, 0])[:, 0].float(),
        )

    def base_alone(
        self, levels: list[Float[Tensor, "b n c"]], rows: int, columns: int
    ) -> Float[Tensor, "b 2 h w"]:
        """Disparity and sky logit of the linear base, without the head: a baseline."""
        return self._base([self.backbone.norm(level) for level in levels], rows, columns)

    def _base(
        self, levels: list[Float[Tensor, "b n c"]], rows: int, columns: int
    ) -> Float[Tensor, "b 2 h w"]:
        base = self.base(base_features(levels, rows, columns))  # (b, n, 2)
        base = base.transpose(1, 2).unflatten(2, (rows, columns))
        size = (SCALE * rows, SCALE * columns)
        return interpolate(base, size, mode="bicubic", align_corners=False)


def fuse(said: DepthPrediction, fast: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Normalised disparity of both branches together: in rooms their mean.

    They learnt from different worlds and err differently, which a mean makes use of and training
    on either world would not.

    Args:
        said: What the first branch says.
        fast: What the second one does.
    """
    share = FAST_SHARE * said.indoors.sigmoid()[:, None, None]
    sky = said.sky > 0
    own = normalised(said.disparity, ~sky)
    return torch.where(sky, own, torch.lerp(own, fast, share))


def base_features(
    levels: list[Float[Tensor, "b n c"]], rows: int, columns: int
) -> Float[Tensor, "b p f"]:
    """What the linear base sees of each patch: its four normalised tokens, and its place."""
    tokens = torch.cat([level[:, 1:] for level in levels], dim=2)
    y = torch.linspace(-1, 1, rows, device=tokens.device, dtype=tokens.dtype)
    x = torch.linspace(-1, 1, columns, device=tokens.device, dtype=tokens.dtype)
    y, x = torch.meshgrid(y, x, indexing="ij")
    place = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=-1)
    place = place.reshape(1, -1, PLACES).expand(len(tokens), -1, -1)
    return torch.cat([tokens, place], dim=2)


def _noisy(tokens: Float[Tensor, "b n c"], source: torch.Generator | None) -> Tensor:
    if source is None:
        return tokens
    noise = torch.randn(tokens.shape, generator=source).to(tokens.device, tokens.dtype)
    return tokens + TOKEN_NOISE * noise


def outline_image(
    rgb: Float[Tensor, "b 3 h w"], rows: int, columns: int
) -> Float[Tensor, "b 3 _ _"]:
    """The image at the size of the output, for its outlines."""
    size = (SCALE * rows, SCALE * columns)
    return interpolate(rgb, size, mode="bilinear", antialias=True, align_corners=False)
