"""Colours that make splats render as the photograph, although each blurs into its neighbours."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera, Renderer, Splats, join
from scenegen.stopping import checkpoint

ROUNDS = 6
"""Iterations; later ones gain less than 1 dB."""


def match_colors(
    splats: Splats,
    image: Float[Tensor, "h w 3"],
    lifted: Bool[Tensor, "h w"],
    camera: Camera,
    renderer: Renderer,
    behind: Splats | None = None,
) -> Splats:
    """Sharpen the colours of freshly lifted splats until their render matches the image.

    Van Cittert iteration: the difference between image and render at a pixel is added to the
    colour of the splat lifted from it. Blending is linear in colour, so this converges.

    Args:
        splats: One splat per pixel of ``lifted``, in row order, as :func:`lift` returns them.
        image: What the camera should see, 0 to 1.
        lifted: The pixels that the splats were lifted from.
        camera: The view of the image.
        renderer: Any renderer.
        behind: Splats already in the world, drawn along but not changed.
    """
    colors = splats.colors
    target = image[lifted]
    for _ in range(ROUNDS):
        checkpoint()
        current = Splats(splats.means, splats.quats, splats.scales, splats.opacities, colors)
        scene = current if behind is None else join([behind, current])
        seen = renderer.render(scene, camera).rgb.to(colors)[lifted]
        colors = (colors + (target - seen)).clamp(0.0, 1.0)
    return Splats(splats.means, splats.quats, splats.scales, splats.opacities, colors)
