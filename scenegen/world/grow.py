"""One growth step: look, remember, invent what nothing explains, and make it part of the world."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter
from torch import Tensor
from torch.nn.functional import max_pool2d

from renderers import Camera, Render, Renderer, Splats, join
from scenegen import geometry, outpaint, splatting
from scenegen.export.budget import thinned
from scenegen.fields import pull_push, regions
from scenegen.models.threads import steady
from scenegen.stopping import checkpoint
from scenegen.world.align import FREE_SPACE, Fit, Seen, behind_seen, fit_depth
from scenegen.world.arrays import StepData
from scenegen.world.completing import completion_network, known_continued, partial_view
from scenegen.world.floor import lowest
from spatial_memory import Retrieval, ViewMemory

COVERED = 0.7
"""A pixel is known where the world's opacity is at least this."""
SOLID = 0.95
"""Depth of the world is trusted for fitting where its opacity is at least this."""
THIN_BEHIND = 1.003
"""Where the world is neither solid nor a hole, its own colours are put this much farther away."""
CLEAR = 1.003
"""What is new lies farther than what the photograph shows in front of it, by this factor."""
BESIDE = 0.5
"""What is new and hidden by a thing in the photograph, but not by what is seen beside it, keeps
this share of its opacity: its blur would be seen across the outline."""
THIN_PX = 2
"""That is done so far from a hole, in pixels."""
MIN_HOLE = 0.0005
"""A view with a smaller unknown share is skipped, 0 to 1."""
OTHERS = 8
"""So many views that were not taken are kept with a step, and why."""
RETRIEVED = 4
"""Past views used as context (K)."""
SKY_BEHIND = 0.05
"""New sky goes on so far behind what stands before it, as a share of the view's width."""
SKY_FROM = 0.6
"""Depth beyond this share of the sky's radius is sky."""


@dataclass(frozen=True, eq=False)
class Look:
    """What the world shows from a planned camera before anything is invented."""

    camera: Camera
    rgb: Float[Tensor, "h w 3"]
    """Colour, with partly covered pixels brought to full strength."""
    depth: Float[Tensor, "h w"]
    """Metres; NaN unknown, +inf sky."""
    hole: Bool[Tensor, "h w"]
    """Pixels that nothing explains."""
    solid: Bool[Tensor, "h w"]
    """Pixels whose depth can be trusted."""

    @property
    def hole_share(self) -> float:
        """Unknown share of the view, 0 to 1."""
        return float(self.hole.float().mean())


def look(render: Render, camera: Camera, sky_radius: float) -> Look:
    """Read a render of the world as a partial view."""
    alpha = render.alpha.cpu().float()
    rgb = render.rgb.cpu().float() / alpha.clamp_min(0.05)[..., None]
    depth = sky_depth(render.depth.cpu().float(), sky_radius)
    hole = alpha < COVERED
    return Look(
        camera=camera,
        rgb=rgb.clamp(0.0, 1.0),
        depth=torch.where(hole, math.nan, depth),
        hole=hole,
        solid=alpha >= SOLID,
    )


def sky_depth(depth: Float[Tensor, "h w"], sky_radius: float) -> Float[Tensor, "h w"]:
    """Depth with the sky's sphere as +inf."""
    return torch.where(depth > SKY_FROM * sky_radius, math.inf, depth)


@dataclass(frozen=True)
class Choice:
    """Past views chosen for a step: what the journal keeps of a retrieval."""

    view_ids: tuple[int, ...]
    """The chosen views, best first."""
    coverage: float
    """Share of the view that they have seen."""
    gains: tuple[float, ...]
    """Share that each added to those before it."""
    votes: tuple[float, ...]
    """Evidence for each on its own."""
    reasons: dict[int, str]
    """Why each was taken, and why not up to OTHERS more, those that show most of the view."""
    asked: int
    """Views that the memory held."""


def remembered(memory: ViewMemory, view: Look) -> Choice:
    """Past views that show the place, best first, and why.

    The evidence counts the whole view, not only its hole: next to nothing is mapped in a hole.
    """
    hit = memory.retrieve([view.camera], k=RETRIEVED)
    return choice_of(hit)


def choice_of(hit: Retrieval) -> Choice:
    """What is kept of a retrieval: as much for a thousand views as for ten."""
    reasons = hit.main_reasons(OTHERS)
    return Choice(hit.view_ids, hit.coverage, hit.gains, hit.votes, reasons, len(hit.candidates))


@dataclass(frozen=True, eq=False)
class Grown:
    """What a growth step adds, and how it came about."""

    data: StepData
    remembered: float
    """Share of the view that was unknown and that past views show, 0 to 1."""
    invented: float
    """Share of the view that the outpainter made up, 0 to 1."""
    fit: Fit | None
    """How the depth of what was invented was fitted; None when nothing was."""
    rejected: dict[int, str]
    """Past views that contradict what is known, and how."""

    def within(self, limit: int | None) -> StepData:
        """What it adds, with at most so many splats: those that look alike are merged."""
        if limit is None:
            return self.data
        return replace(self.data, splats=thinned(self.data.splats, limit))

    def as_info(self) -> dict[str, Any]:
        """What the journal keeps of it: plain values."""
        fit = self.fit
        return {
            "remembered": self.remembered,
            "invented": self.invented,
            "rejected": {str(view_id): reason for view_id, reason in self.rejected.items()},
            "fit": fit and {"scale": fit.scale, "shift": fit.shift, "error": fit.error},
        }


@steady
def invent(
    view: Look,
    memory: ViewMemory,
    view_ids: tuple[int, ...],
    *,
    renderer: Renderer,
    depth_backend: str,
    outpaint_backend: str,
    prompt: str | None,
    seed: int,
    sky_radius: float,
    eye_height: float,
) -> Grown | None:
    """Fill a view's hole, from past views first, and lift it; None where there is nothing to add.

    What past views show keeps the depth that it has there.
    """
    references = [memory.views[view_id] for view_id in view_ids]
    done = outpaint.complete(
        view.rgb,
        ~view.hole,
        view.camera,
        view.depth,
        references,
        seed,
        outpaint_backend,
        prompt,
    )
    checkpoint()
    remembered, invented = (float(m.float().mean()) for m in (done.remembered, done.invented))
    if invented == 0.0 and remembered < MIN_HOLE:
        return None
    rgb, fit = as_levels(done.rgb), None
    seen = [Seen(memory.views[0].camera, memory.views[0].depth)]
    seen += [Seen(p.camera, p.depth) for p in references if p is not memory.views[0]]
    full = torch.where(done.remembered, done.depth, view.depth)
    if invented > 0.0:
        estimate = geometry.estimate(rgb, depth_backend, view.camera.fov_degrees, eye_height)
        checkpoint()
        fit = fit_depth(estimate.depth, view.depth, view.solid & ~view.hole)
        said = estimate.depth, estimate.sky
        partial = partial_view(rgb, *said, full, done.invented, view.camera, fit)
        depth = known_continued(completion_network(depth_backend), partial)
        limit = lowest(view.camera, seen[0], eye_height)
        depth = behind_seen(torch.minimum(depth, limit), done.invented, view.camera, seen)
        open_above = torch.isposinf(limit)
        sky = _new_sky(estimate.sky, done.invented, full, open_above)
        sky |= torch.isnan(depth) & open_above & done.invented  # only sky was seen there
        full = torch.where(done.invented, torch.where(sky, math.inf, depth), full)
    checkpoint()
    lifted = view.hole & ~torch.isnan(full)
    full = torch.where(lifted, splatting.snap_flying(full), full)
    thin = ~view.solid & ~view.hole & _beside(view.hole)
    thin_sky, thin = thin & torch.isposinf(full), thin & torch.isfinite(full)
    backed = behind_seen(torch.where(thin, THIN_BEHIND * full, full), thin, view.camera, seen)
    thin &= torch.isfinite(backed)
    coat = splatting.undercoat(rgb, full, view.camera, lifted, sky_radius)
    beside = splatting.lift(rgb, full, view.camera, ~lifted & ~thin, sky_radius)
    splats = splatting.lift(rgb, backed, view.camera, lifted | thin, sky_radius)
    splats = splatting.match_colors(
        splats, rgb, lifted | thin, view.camera, renderer, join([coat, beside])
    )
    backing = sky_behind(rgb, full, lifted, view.camera, seen[0], sky_radius)
    shell = splatting.lift(rgb, full, view.camera, thin_sky, THIN_BEHIND * sky_radius)
    added = join([behind_photo(join([splats, coat]), seen[0], sky_radius), backing, shell])
    data = StepData(splats=added, rgb=rgb, depth=full, known=lifted)
    said = zip(view_ids, done.verdicts, strict=False)  # none where nothing had to be filled
    rejected = {view_id: v.reason for view_id, v in said if v.rejected}
    return Grown(data, remembered, invented, fit, rejected)


def behind_photo(splats: Splats, photo: Seen, sky_radius: float) -> Splats:
    """New splats, without any before what the photograph shows.

    Those a little before it, as far as two views may differ about one surface, are put behind it
    along the photograph's rays; the others are left out. Those hidden right beside an outline fade.

    Args:
        splats: In the world.
        photo: What the photograph shows.
        sky_radius: Radius of the sky's sphere, in metres: new sky may lie beside the old one.
    """
    pixels, depth = photo.camera.project(splats.means)
    clear = CLEAR * photo.depth_at(pixels, depth)
    surface = splats.means.norm(dim=1) <= SKY_FROM * sky_radius
    factor = torch.where(surface & (depth < clear), clear / depth, 1.0)  # NaN compares false
    center = photo.camera.center
    means = center + factor[:, None] * (splats.means - center)
    farthest = max_pool2d(photo.depth[None, None], 3, 1, 1)[0, 0]
    beside = surface & (factor * depth < Seen(photo.camera, farthest).depth_at(pixels, depth))
    opacities = torch.where(beside, BESIDE * splats.opacities, splats.opacities)
    return replace(splats, means=means, opacities=opacities)[factor <= CLEAR / FREE_SPACE]


def sky_behind(
    rgb: Float[Tensor, "h w 3"],
    depth: Float[Tensor, "h w"],
    new: Bool[Tensor, "h w"],
    camera: Camera,
    photo: Seen,
    sky_radius: float,
) -> Splats:
    """New sky goes on a little behind what stands before it: a step aside shows no gap.

    Args:
        rgb: The view.
        depth: Its depth, metres; +inf sky.
        new: Its pixels that are new.
        camera: Where it is taken from.
        photo: What the photograph shows; its sky is left as it is.
        sky_radius: Radius of the sky's sphere, in metres.
    """
    sky = torch.isposinf(depth)
    reach = 2 * round(SKY_BEHIND * depth.shape[1]) + 1
    near = torch.from_numpy(maximum_filter((sky & new).numpy(), reach, mode="constant"))
    behind = near & torch.isfinite(depth)
    if not behind.any():
        return splatting.lift(rgb, depth, camera, behind, sky_radius)
    colors = pull_push(rgb, sky)
    splats = splatting.lift(colors, torch.full_like(depth, math.inf), camera, behind, sky_radius)
    pixels, distance = photo.camera.project(splats.means)
    return splats[~torch.isposinf(photo.depth_at(pixels, distance))]


def _beside(hole: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Pixels within THIN_PX of a hole."""
    size = 2 * THIN_PX + 1
    return max_pool2d(hole.float()[None, None], size, 1, THIN_PX)[0, 0] > 0


def as_levels(rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    """Colours on the 8-bit levels that files hold, so that a reopened world is the same."""
    return (rgb * 255).round() / 255


def _new_sky(
    sky: Bool[Tensor, "h w"],
    new: Bool[Tensor, "h w"],
    depth: Float[Tensor, "h w"],
    open_above: Bool[Tensor, "h w"],
) -> Bool[Tensor, "h w"]:
    """New pixels that are sky: they look like it, and touch sky that is known.

    So are those of a cloud that looks like a thing: no thing hangs in the sky.
    """
    known_sky = torch.isposinf(depth)
    names = regions((sky & new & open_above) | known_sky)
    touching = torch.unique(names[known_sky])
    found = torch.isin(names, touching[touching > 0])
    if found.any():
        things = regions(~found)
        standing = torch.unique(things[~found & ~(new & open_above)])
        found |= ~torch.isin(things, standing)
    return found & new
