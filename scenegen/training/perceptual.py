"""LPIPS (Zhang et al. 2018), AlexNet version 0.1: how different two pictures look."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from scenegen.models import is_present, model_path

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What the network's input is brought to, for pictures between -1 and 1."""


def missing_lpips() -> str | None:
    """Why pictures cannot be compared here, or None when they can. Cheap."""
    return None if is_present("lpips") else "its weights are missing: scenegen models pull lpips"


class Lpips(nn.Module):
    """Perceptual distance. Its weights are fixed."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        """Load the weights.

        Raises:
            SceneError: They were not pulled.
        """
        super().__init__()
        held = torch.load(model_path("lpips"), map_location="cpu", weights_only=True)
        self.plan = [
            (int(layer["stride"]), int(layer["padding"]), bool(pool))
            for layer, pool in zip(held["trunk"], held["pool_before"], strict=True)
        ]
        for number, layer in enumerate(held["trunk"]):
            self.register_buffer(f"weight{number}", layer["weight"].float())
            self.register_buffer(f"bias{number}", layer["bias"].float())
            self.register_buffer(f"mix{number}", held["lin"][number].float().view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(
        self, one: Float[Tensor, "b 3 h w"], two: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Distance of each pair: 0 for the same picture, about 1 for nothing in common.

        Args:
            one: Pictures, 0 to 1, at least 64 pixels on both sides.
            two: Their counterparts.

        Differentiable in both.
        """
        return self.between(self.features(one), self.features(two))

    def between(self, one: list[Tensor], two: list[Tensor]) -> Float[Tensor, " b"]:
        """Distance of each pair, from their features."""
        total = one[0].new_zeros(len(one[0]))
        for number, (a, b) in enumerate(zip(one, two, strict=True)):
            mix = self.get_buffer(f"mix{number}").to(a.dtype)
            total = total + ((a - b) ** 2 * mix).sum(1).mean((1, 2))
        return total

    def features(self, rgb: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Each level's features, of length 1 at every pixel."""
        x, found = ((2 * rgb - 1) - self.shift) / self.scale, []
        for number, (stride, padding, pool) in enumerate(self.plan):
            if pool:
                x = max_pool2d(x, 3, 2)
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            x = conv2d(x, weight, bias, stride, padding).relu()
            # The root of a sum of squares has no slope at 0: the tiny term keeps it finite.
            length = (x.square().sum(1, keepdim=True) + 1e-20).sqrt()
            found.append(x / (length + 1e-10))
        return found
