"""The picture of the README: a photograph, its world from behind the camera, and two walked views.

Run: python benchmarks/readme_picture.py WORLD docs/picture.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import scenegen
from scenegen.export.images import to_bytes

HEIGHT = 420
"""Height of each panel, in pixels."""


def main(folder: Path, out: Path) -> None:
    """Draw four panels side by side, two by two."""
    world = scenegen.open(folder)
    camera = world.camera0
    photograph = world.memory.views[0].rgb
    above = camera.moved(down=-2.2, forward=-3.0, pitch_degrees=-16.0)
    walked = camera.moved(right=0.3, forward=0.5)
    turned = camera.moved(yaw_degrees=25.0)
    dark = (0.1, 0.1, 0.12)
    views = [world.render(view, background=dark).rgb for view in (above, walked, turned)]
    panels = [_panel(picture) for picture in (photograph, *views)]
    rows = [torch.cat(panels[:2], 1), torch.cat(panels[2:], 1)]
    Image.fromarray(to_bytes(torch.cat(rows))).save(out, quality=88)


def _panel(picture: Tensor) -> Tensor:
    width = round(picture.shape[1] * HEIGHT / picture.shape[0])
    planes = picture.permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(planes, (HEIGHT, width), mode="area")
    return torch.nn.functional.pad(small, (4, 4, 4, 4), value=1.0)[0].permute(1, 2, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
