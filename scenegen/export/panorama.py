"""All that is seen from one place, as an equirectangular picture that viewers know as a panorama.

Six pinhole views in the directions of a cube are drawn and looked up. The middle of the picture is
straight ahead, its left and right ends are straight behind, its top is straight up.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import grid_sample

from renderers.camera import Camera
from renderers.errors import SceneError
from scenegen.export.atomic import atomic_write
from scenegen.export.images import to_bytes
from scenegen.export.progress import progress

logger = logging.getLogger("scenegen")

HEIGHT = 1280
"""Rows of a panorama; it has twice as many columns."""
MARGIN = 2
"""Pixels drawn beyond each side of a face, so that its edge can be interpolated."""
TURNS = ((0, 0), (90, 0), (180, 0), (270, 0), (0, 90), (0, -90))
"""Yaw and pitch of the six views, in degrees."""


def panorama(
    draw: Callable[[Camera], Float[Tensor, "h w 3"]], camera: Camera, height: int = HEIGHT
) -> Float[Tensor, "h w 3"]:
    """Draw a panorama, ``height`` rows and twice as many columns.

    Args:
        draw: Colours that a camera sees.
        camera: Its place and its direction; its lens plays no part.
        height: Rows, at least 8.
    """
    side = math.ceil(height / 2) + 2 * MARGIN
    slope = side / (side - 2 * MARGIN)  # tangent of half the field of view
    lens = Camera.from_fov(math.degrees(2 * math.atan(slope)), side, side, camera.cam_from_world)
    longitude = ((torch.arange(2 * height) + 0.5) / height - 1.0) * math.pi
    latitude = (0.5 - (torch.arange(height) + 0.5) / height) * math.pi
    flat = latitude.cos()[:, None]
    rays = torch.stack(
        [flat * longitude.sin(), (-latitude.sin())[:, None].expand(-1, 2 * height),
         flat * longitude.cos()], -1,
    )  # fmt: skip
    result, nearest = torch.zeros(height, 2 * height, 3), torch.zeros(height, 2 * height)
    for yaw, pitch in progress(TURNS, "looking around"):
        turned = lens.moved(yaw_degrees=yaw, pitch_degrees=pitch)
        turn = (turned.cam_from_world[:3, :3] @ lens.cam_from_world[:3, :3].T).float()
        x, y, z = (rays @ turn.T).unbind(-1)
        mine = z > nearest
        nearest = torch.where(mine, z, nearest)
        safe = z.clamp_min(1e-6) * slope
        face = draw(turned).detach().cpu().float()
        spots = torch.stack([x / safe, y / safe], -1)[None]
        seen = grid_sample(face.permute(2, 0, 1)[None], spots, align_corners=False)
        result = torch.where(mine[..., None], seen[0].permute(1, 2, 0), result)
    return result


def write_panorama(path: str | Path, rgb: Float[Tensor, "h w 3"]) -> None:
    """Write a panorama as PNG or JPEG, with the tags (GPano) by which programs know it as one.

    Args:
        path: A ``.png``, ``.jpg`` or ``.jpeg``. It appears whole or not at all.
        rgb: sRGB, 0 to 1, twice as wide as high.

    Raises:
        SceneError: The picture has another shape or holds NaN, or the file cannot be written.
    """
    path, pixels = Path(path), to_bytes(rgb)
    height, width = pixels.shape[:2]
    suffix = path.suffix.lower()
    if width != 2 * height or suffix not in (".png", ".jpg", ".jpeg"):
        raise SceneError(
            f"cannot write {path} as a panorama",
            why=f"it is {width} x {height} pixels and {suffix or 'without a suffix'}",
            fix="a panorama is twice as wide as high, and a .png or .jpg",
        )
    tags, data = _tags(width, height), io.BytesIO()
    if suffix == ".png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", tags)
        Image.fromarray(pixels).save(data, format="PNG", pnginfo=info)
    else:
        Image.fromarray(pixels).save(data, format="JPEG", quality=92, xmp=tags.encode())
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.getbuffer())
    logger.info("%s: a panorama of %d x %d pixels; no depth, no camera", path, width, height)


def _tags(width: int, height: int) -> str:
    """Google's Photo Sphere metadata: a whole sphere."""
    values = {
        "ProjectionType": "equirectangular", "UsePanoramaViewer": "True",
        "FullPanoWidthPixels": width, "FullPanoHeightPixels": height,
        "CroppedAreaImageWidthPixels": width, "CroppedAreaImageHeightPixels": height,
        "CroppedAreaLeftPixels": 0, "CroppedAreaTopPixels": 0,
    }  # fmt: skip
    lines = "".join(f' GPano:{name}="{value}"' for name, value in values.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"'
        f'{lines}/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )
