"""DINOv2 ViT-S/14 (Oquab et al. 2023) in plain torch: the image features under our depth network.

The weights come from the pulled model ``dinov2-s``, an ONNX file of another network that was
built on this backbone; reading it needs the package ``onnx``. Networks trained here carry their
own copy and need neither.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scenegen.models.onnx import missing_graph, read_graph

SOURCE = ("dinov2-s", "DINOv2")
"""Name of the pulled model, and what people call it."""
PATCH = 14
"""Side of one token's square, in pixels."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet that the backbone was trained with, sRGB 0 to 1."""
EPSILON = 1e-6
"""Added to variances by its layer norms."""


class Block(nn.Module):
    """One pre-norm transformer block with layer scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = self.norm1(tokens)
        query, key, value = (self._split(f(x)) for f in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)  # (b, k, n, d)
        tokens = tokens + self.scale1 * self.out(mixed.transpose(1, 2).flatten(2))
        inner = nn.functional.gelu(self.fc1(self.norm2(tokens)))
        return tokens + self.scale2 * self.fc2(inner)

    def _split(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b k n d"]:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class DinoV2(nn.Module):
    """The backbone. The defaults are ViT-S/14; smaller ones serve tests."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, width: int = 384, heads: int = 6, depth: int = 12, positions: int = 37
    ) -> None:
        """Make an untrained backbone.

        Args:
            width: Length of a token.
            heads: Attention heads; divides the width.
            depth: Blocks; a multiple of 4.
            positions: Side of the grid that positions were learnt on, in tokens.
        """
        super().__init__()
        self.width, self.positions = width, positions
        self.levels = tuple(depth * (i + 1) // 4 - 1 for i in range(4))
        self.patch = nn.Conv2d(3, width, PATCH, PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_position = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, positions**2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b n c"]]:
        """Tokens after each quarter of the blocks (``levels``), before the final norm.

        Args:
            rgb: Images, sRGB, 0 to 1, sides multiples of 14.

        Returns:
            Four arrays of 1 + (h / 14) (w / 14) tokens: the class token, then rows of patches.
        """
        return self.run(self.embed(rgb), 0)

    def embed(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Tokens before the first block."""
        patches = self.patch((rgb - self.mean) / self.deviation)  # (b, c, h / 14, w / 14)
        patches = patches + self._positions(patches.shape[2], patches.shape[3])
        first = (self.cls + self.cls_position).expand(len(rgb), -1, -1)
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)

    def run(self, tokens: Float[Tensor, "b n c"], start: int) -> list[Float[Tensor, "b n c"]]:
        """The blocks from ``start`` on; the tokens after those that are levels."""
        kept = []
        for index, block in enumerate(self.blocks):
            if index < start:
                continue
            tokens = block(tokens)
            if index in self.levels:
                kept.append(tokens)
        return kept

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 c r s"]:
        side = self.positions
        grid = self.position.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if (rows, columns) == (side, side):
            return grid
        return nn.functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)


def missing_backbone() -> str | None:
    """Why the pretrained backbone cannot be read here, or None when it can. Cheap."""
    return missing_graph(*SOURCE)


def pretrained_backbone() -> DinoV2:
    """DINOv2 ViT-S/14 with the weights of the pulled file, verified by its sha256.

    Raises:
        SceneError: The file or the package ``onnx`` is missing, or it is another file.
    """
    network = DinoV2()
    network.load_state_dict(_state(*read_graph(*SOURCE)))
    return network.eval()


_LAYER = r"backbone\.encoder\.layer\.(\d+)\."
_DENSE = {
    "attention.attention.query": "query",
    "attention.attention.key": "key",
    "attention.attention.value": "value",
    "attention.output.dense": "out",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
_PLAIN = {"layer_scale1.lambda1": "scale1", "layer_scale2.lambda1": "scale2"}
_PLAIN |= {f"norm{i}.{kind}": f"norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}


def _state(nodes: list[Any], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of :class:`DinoV2` from nodes and weights of the ONNX file."""
    patch = "backbone.embeddings.patch_embeddings.projection"
    state = {
        "patch.weight": found[f"{patch}.weight"],
        "patch.bias": found[f"{patch}.bias"],
        "cls": found["backbone.embeddings.cls_token"],
        "norm.weight": found["backbone.layernorm.weight"],
        "norm.bias": found["backbone.layernorm.bias"],
        # The exporter split the learnt positions in two and named the parts by their consumers.
        "cls_position": _only(found, "onnx::Concat"),
        "position": _only(found, "onnx::Reshape"),
    }
    for name, value in found.items():
        if match := re.fullmatch(_LAYER + "(.+)", name):
            if match[2] in _PLAIN:
                state[f"blocks.{match[1]}.{_PLAIN[match[2]]}"] = value
    makers = {node.output[0]: node for node in nodes}
    for node in nodes:
        if node.op_type == "Add":
            state |= _dense(node, makers, found)
    return state


def _only(found: dict[str, Tensor], prefix: str) -> Tensor:
    return next(value for name, value in found.items() if name.startswith(prefix))


def _dense(node: Any, makers: dict[str, Any], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """A linear layer: the exporter kept the name of its bias only; its matrix is what it meets."""
    for bias, product in (node.input, reversed(node.input)):
        match = re.fullmatch(_LAYER + r"(.+)\.bias", bias)
        if match and match[2] in _DENSE:
            (weight,) = (name for name in makers[product].input if name in found)
            layer = f"blocks.{match[1]}.{_DENSE[match[2]]}"
            return {f"{layer}.weight": found[weight].T.contiguous(), f"{layer}.bias": found[bias]}
    return {}
