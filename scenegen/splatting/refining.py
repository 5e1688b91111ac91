"""Refinement: splats change a little, until they render as the views that a world remembers.

Gradient descent on the photometric loss (Kerbl et al. 2023, section 5) for splats that already lie
where depth put them. Each stays within a pixel of its place and near its size: what moves is where
edges run between pixels, which sharpens views that were never stored, too.

Targets are the pixels that a view brought itself. The rest of a stored view is a drawing of the
world as it was then: to fit it would be to learn its flaws. No splat is added or removed: there is
one per pixel, and to split more of them was measured to lower the quality of new views.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import prange
from torch import Tensor

from renderers import Camera, Renderer, SceneError, Splats
from renderers.kernels import RENDER_LOCK, kernel
from scenegen.splatting.losses import photometric_loss, psnr
from spatial_memory import View

f32 = np.float32
ROUNDS = 6
"""Rounds unless asked for otherwise. New views gain most in these; 12 fit stored ones closer."""
OBSERVED_VISITS = 4
"""Visits to a photograph in a round. Generated views, which bring fewer pixels, get one."""
MEAN_RATE = 0.4
"""Step of a mean, in sizes of its splat: the middle one of its three scales, at a lifted splat a
third of a pixel. The rates are those of the first steps, and fall along a cosine."""
QUAT_RATE = 0.05
SCALE_RATE = 0.05
"""Step of the logarithm of a scale."""
OPACITY_RATE = 0.1
"""Step of the logit of an opacity."""
COLOR_RATE = 0.02
LAST_RATE = 0.1
"""What the rates fall to, as a share of the first."""
REACH = 3.0
"""How far a mean may go from where depth put it, in sizes of its splat: about a pixel."""
STRETCH = 2.0
"""Factor by which a scale may grow or shrink."""
OPACITY_LIMIT = 0.995
"""Opacities stay below this and above its complement, where their logit still moves."""
SKY_SHELL = 0.6
"""Splats beyond this share of the sky's radius are sky, and keep their places."""

COLUMNS = 14
"""Numbers per splat: mean (3), quaternion (4), scales (3), opacity, colour (3)."""
WIDTHS = (3, 4, 3, 1, 3)
ANCHORS = 7
"""Numbers per splat that limit its change: first mean (3), first scales (3), size or 0 for sky."""
MEMORY_1, MEMORY_2 = f32(0.9), f32(0.999)
"""Decay of the averages of the gradient and of its square (Kingma and Ba 2015, section 2)."""
LOG_1, LOG_2 = f32(math.log(0.9)), f32(math.log(0.999))
TINY = f32(1e-20)
ONE = f32(1.0)
CHUNK = 4096
"""Splats that one thread changes at a time."""


@dataclass(frozen=True)
class RefineProgress:
    """One step of refinement is done."""

    iteration: int
    """Number of the step, from 1."""
    iterations: int
    """Steps in all."""
    view: int
    """Place of the view that the step was taken for, in the views given."""
    loss: float
    """Photometric loss of that view before the step."""

    def __str__(self) -> str:
        return f"refining: step {self.iteration} of {self.iterations}, loss {self.loss:.4f}"


@dataclass(frozen=True, eq=False)
class Refined:
    """What came of a refinement."""

    splats: Splats
    """Row by row the splats given, changed; the very same object where nothing was gained."""
    before: tuple[float, ...]
    """PSNR of each view over its known pixels, dB, as the splats came."""
    after: tuple[float, ...]
    """The same for ``splats``."""
    iterations: int
    """Steps that ``splats`` have behind them; 0 where they came back as they were."""

    def __str__(self) -> str:
        gain = sum(self.after) / len(self.after) - sum(self.before) / len(self.before)
        return f"refined in {self.iterations} steps: {gain:+.1f} dB over {len(self.after)} views"


def refine(
    splats: Splats,
    views: Sequence[View],
    renderer: Renderer,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    sky_radius: float | None = None,
) -> Refined:
    """Change splats until they render as the views, as :func:`refine_events` does; the result."""
    *_, last = refine_events(
        splats, views, renderer, rounds=rounds, seed=seed, sky_radius=sky_radius
    )
    assert isinstance(last, Refined)
    return last


def refine_events(
    splats: Splats,
    views: Sequence[View],
    renderer: Renderer,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    sky_radius: float | None = None,
) -> Generator[RefineProgress | Refined]:
    """Change splats until they render as the views, step by step.

    The result is never worse than what was given: on every photograph its PSNR is at least as
    high as before, and higher on the mean over all views. Otherwise the splats come back as they
    were. The same bytes for the same seed, with a renderer that is deterministic.

    Args:
        splats: What exists. Not changed; stopping at any time loses only the work.
        views: What it should look like. Pixels that are not ``known`` do not count.
        renderer: Any renderer; spherical harmonics are drawn along but stay as they are.
        rounds: How often each view is visited; photographs OBSERVED_VISITS times as often.
        seed: Orders the visits.
        sky_radius: Radius of the sky's sphere around the origin, in metres: splats near it keep
            their places. Left out, there is no sky.

    Yields:
        RefineProgress after every step, then Refined.

    Raises:
        SceneError: There are no splats, no views, or no rounds.
    """
    for amount, what in ((len(splats), "splats"), (len(views), "views"), (rounds, "rounds")):
        if amount < 1:
            raise SceneError(
                f"nothing can be refined with {amount} {what}",
                why="refinement fits splats to views, in one or more rounds",
                fix=f"pass some {what}",
            )
    state = _State(splats, sky_radius)
    targets = [_Target(view, state) for view in views]
    generator = torch.Generator().manual_seed(seed)
    visits = [i for i, t in enumerate(targets) for _ in range(OBSERVED_VISITS if t.observed else 1)]
    total, done = rounds * len(visits), 0
    before = tuple(_psnr(state, target, renderer) for target in targets)
    best = Refined(splats, before, before, 0)
    for number in range(rounds):
        for place in torch.randperm(len(visits), generator=generator).tolist():
            share = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done / total))
            loss = _step(state, targets[visits[place]], renderer, share)
            done += 1
            yield RefineProgress(done, total, visits[place], loss)
        if number + 1 in (rounds // 2, rounds):
            after = tuple(_psnr(state, target, renderer) for target in targets)
            kept = all(a >= b for a, b, t in zip(after, before, targets, strict=True) if t.observed)
            if kept and sum(after) > sum(best.after):
                best = Refined(state.splats(), before, after, done)
    yield best


class _State:
    """The splats on their way, row by row as they came."""

    def __init__(self, splats: Splats, sky_radius: float | None) -> None:
        self.given = splats
        fields = (splats.means, splats.quats, splats.scales, splats.opacities, splats.colors)
        plain = [field.detach().cpu().float().reshape(len(splats), -1) for field in fields]
        self.table = torch.cat(plain, 1).numpy()
        self.sh = None if splats.sh is None else splats.sh.detach().cpu().float()
        sizes = np.abs(self.table[:, 7:10])
        size = np.sort(sizes, axis=1)[:, 1]
        if sky_radius is not None:
            far = np.linalg.norm(self.table[:, :3], axis=1)
            size = np.where(far > SKY_SHELL * sky_radius, f32(0.0), size)
        self.anchors = np.column_stack([self.table[:, :3], sizes, size])
        self.moments = np.zeros((len(splats), 2, COLUMNS), f32)
        self.seen = np.zeros(len(splats), np.int32)
        self._parts = [np.empty(0, f32) for _ in WIDTHS]

    def splats(self) -> Splats:
        """A copy of how they are now, in the type and place of the splats given."""
        given = self.given
        means, quats, scales, opacities, colors = (
            part.squeeze(1) if part.shape[1] == 1 else part
            for part in torch.from_numpy(self.table.copy()).split(WIDTHS, 1)
        )
        return Splats(
            means.to(given.means).contiguous(),
            quats.to(given.quats).contiguous(),
            scales.to(given.scales).contiguous(),
            opacities.to(given.opacities).contiguous(),
            colors.to(given.colors).contiguous(),
            None if given.sh is None else given.sh.detach(),
        )

    def leaves(self, rows: np.ndarray) -> list[Tensor]:
        """The fields of some rows, to be differentiated by. The next call takes their memory."""
        if self._parts[0].size < 3 * len(rows):
            self._parts = [np.empty(width * len(rows), f32) for width in WIDTHS]
        parts = [
            part[: width * len(rows)].reshape(-1, width)
            for part, width in zip(self._parts, WIDTHS, strict=True)
        ]
        with RENDER_LOCK:
            _gather(self.table, rows, *parts)
        tensors = [torch.from_numpy(part) for part in parts]
        tensors[3] = tensors[3][:, 0]
        return [tensor.requires_grad_() for tensor in tensors]

    def visible(self, leaves: Sequence[Tensor], rows: np.ndarray) -> Splats:
        """Some rows, of the fields that :meth:`leaves` gave."""
        means, quats, scales, opacities, colors = leaves
        sh = None if self.sh is None else self.sh[torch.from_numpy(rows).long()]
        return Splats(means, quats, scales, opacities, colors, sh)


class _Target:
    """The part of a view that counts, and the rows that it may show."""

    def __init__(self, view: View, state: _State) -> None:
        rows, columns = (torch.nonzero(view.known.any(dim))[:, 0].tolist() for dim in (1, 0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        shift = torch.eye(3).to(view.camera.px_from_cam)
        shift[0, 2], shift[1, 2] = -left, -top
        lens, pose = shift @ view.camera.px_from_cam, view.camera.cam_from_world
        self.camera = Camera(lens, pose, right - left, bottom - top)
        self.rgb = view.rgb[top:bottom, left:right].contiguous()
        self.weights = view.known[top:bottom, left:right].float()
        # Between pixels that count alike, which lets a view of few pixels decay, and views that do,
        # in which few pixels drown what many say about a splat.
        self.share = math.sqrt(float(view.known.float().mean()))
        self.observed = view.provenance == "observed"
        self.rows = _rows_in_sight(state, self.camera)


def _rows_in_sight(state: _State, camera: Camera) -> np.ndarray:
    """Rows that may touch a camera's image, now or after any change that the limits allow."""
    lens = camera.px_from_cam.tolist()
    numbers = (lens[0][0], lens[1][1], lens[0][2], lens[1][2], camera.width, camera.height)
    flags = np.empty(len(state.table), np.bool_)
    pose = camera.cam_from_world[:3].float().cpu().contiguous().numpy()
    with RENDER_LOCK:
        _in_sight(state.table, pose, tuple(f32(x) for x in numbers), flags)
    return np.flatnonzero(flags).astype(np.int32)


def _psnr(state: _State, target: _Target, renderer: Renderer) -> float:
    with torch.no_grad():
        leaves = [leaf.detach() for leaf in state.leaves(target.rows)]
        picture = renderer.render(state.visible(leaves, target.rows), target.camera)
    return psnr(picture.rgb, target.rgb, target.weights)


def _step(state: _State, target: _Target, renderer: Renderer, share: float) -> float:
    """One step for one view; returns its loss. ``share`` scales the rates."""
    with torch.enable_grad():
        leaves = state.leaves(target.rows)
        picture = renderer.render(state.visible(leaves, target.rows), target.camera)
        loss = photometric_loss(picture.rgb, target.rgb, target.weights)
        if not loss.requires_grad:  # nothing is in sight
            return float(loss)
        gradients = torch.autograd.grad(loss * target.share, leaves, materialize_grads=True)
    rates = (MEAN_RATE, QUAT_RATE, SCALE_RATE, OPACITY_RATE, COLOR_RATE)
    with RENDER_LOCK:
        _move(
            state.table,
            target.rows,
            tuple(gradient.contiguous().numpy() for gradient in gradients),
            state.moments,
            state.seen,
            state.anchors,
            tuple(f32(rate * share) for rate in rates),
            (f32(REACH), f32(STRETCH), f32(OPACITY_LIMIT)),
        )
    return float(loss.detach())


@kernel(parallel=True, fast=True)
def _in_sight(table, pose, lens, flags):
    """Which splats can touch an image: ``lens`` is (fx, fy, cx, cy, width, height) in pixels."""
    fx, fy, cx, cy, width, height = lens
    for i in prange(flags.size):
        p = table[i]
        x = pose[0, 0] * p[0] + pose[0, 1] * p[1] + pose[0, 2] * p[2] + pose[0, 3]
        y = pose[1, 0] * p[0] + pose[1, 1] * p[1] + pose[1, 2] * p[2] + pose[1, 3]
        z = pose[2, 0] * p[0] + pose[2, 1] * p[1] + pose[2, 2] * p[2] + pose[2, 3]
        # 3.4 standard deviations of what a splat may grow to, and the way that it may go
        reach = max(max(abs(p[7]), abs(p[8])), abs(p[9])) * f32(3.4 * STRETCH + REACH)
        inverse = ONE / max(z, f32(1e-3))
        slope_x, slope_y = x * inverse, y * inverse
        spread = reach * inverse * (ONE + abs(slope_x) + abs(slope_y))
        u, v = fx * slope_x + cx, fy * slope_y + cy
        wide, tall = fx * spread + f32(4.0), fy * spread + f32(4.0)  # 4: the low-pass filter's
        inside = (u + wide > f32(0.0)) & (u - wide < width)
        inside &= (v + tall > f32(0.0)) & (v - tall < height)
        flags[i] = inside & (z + reach > f32(0.0))  # false for NaN


@kernel(parallel=True, fast=True)
def _gather(table, rows, means, quats, scales, opacities, colors):
    """Copy some rows of the table, column by column of Splats."""
    for i in prange(rows.size):
        p = table[rows[i]]
        for k in range(3):
            means[i, k], scales[i, k], colors[i, k] = p[k], p[7 + k], p[11 + k]
        for k in range(4):
            quats[i, k] = p[3 + k]
        opacities[i, 0] = p[10]


@kernel(parallel=True, fast=True)
def _move(table, rows, gradients, moments, seen, anchors, rates, limits):
    """One step of Adam (Kingma and Ba 2015, algorithm 1) for the splats that a view shows.

    Splats without a gradient wait, averages and all: they are out of sight, not settled.

    Args:
        table: (n, COLUMNS), changed.
        rows: (m,) int32 rows that were drawn, none twice.
        gradients: (m, 3), (m, 4), (m, 3), (m,) and (m, 3): by the fields of Splats.
        moments: (n, 2, COLUMNS) averages of the gradient and of its square, changed.
        seen: (n,) steps that each splat took, changed.
        anchors: (n, ANCHORS).
        rates: One for each of the five fields.
        limits: (REACH, STRETCH, OPACITY_LIMIT).
    """
    means, quats, scales, opacities, colors = gradients
    for part in prange(-(-rows.size // CHUNK)):
        slope, step = np.empty(COLUMNS, np.float32), np.empty(COLUMNS, np.float32)
        for i in range(part * CHUNK, min(rows.size, (part + 1) * CHUNK)):
            row = rows[i]
            p, anchor = table[row], anchors[row]
            size, opacity = anchor[6], p[10]
            for k in range(3):  # in sizes, and by the logarithm
                slope[k], slope[7 + k] = means[i, k] * size, scales[i, k] * p[7 + k]
                slope[11 + k] = colors[i, k]
            for k in range(4):
                slope[3 + k] = quats[i, k]
            slope[10] = opacities[i] * opacity * (ONE - opacity)  # by the logit
            total = f32(0.0)
            for k in range(COLUMNS):
                total += abs(slope[k])
            if not (total > f32(0.0) and total < f32(np.inf)):
                continue
            seen[row] += 1
            _adam(slope, moments[row, 0], moments[row, 1], f32(seen[row]), step)
            _apply(p, anchor, step, rates, limits)


@kernel(fast=True)
def _adam(slope, first, second, count, step):
    """Update both averages; the step for a rate of 1."""
    # not powers: those of whole numbers compile to a call that numba's linker does not know
    whole_1, whole_2 = ONE - math.exp(count * LOG_1), ONE - math.exp(count * LOG_2)
    for k in range(COLUMNS):
        first[k] = MEMORY_1 * first[k] + (ONE - MEMORY_1) * slope[k]
        second[k] = MEMORY_2 * second[k] + (ONE - MEMORY_2) * slope[k] * slope[k]
        step[k] = -(first[k] / whole_1) / (math.sqrt(second[k] / whole_2) + TINY)


@kernel(fast=True)
def _apply(p, anchor, step, rates, limits):
    """Change one splat, within its limits."""
    reach, stretch, high = limits
    size = anchor[6]
    x = p[0] + size * rates[0] * step[0] - anchor[0]
    y = p[1] + size * rates[0] * step[1] - anchor[1]
    z = p[2] + size * rates[0] * step[2] - anchor[2]
    far = math.sqrt(x * x + y * y + z * z)
    stay = reach * size / far if far > reach * size else ONE
    p[0], p[1], p[2] = anchor[0] + stay * x, anchor[1] + stay * y, anchor[2] + stay * z
    for k in range(4):
        p[3 + k] += rates[1] * step[3 + k]
    for k in range(3):
        scale = p[7 + k] * math.exp(rates[2] * step[7 + k])
        bounded = min(max(abs(scale), anchor[3 + k] / stretch), anchor[3 + k] * stretch)
        p[7 + k] = bounded if scale >= f32(0.0) else -bounded
        p[11 + k] = min(max(p[11 + k] + rates[4] * step[11 + k], f32(0.0)), ONE)
    opacity = min(max(p[10], ONE - high), high)
    odds = opacity / (ONE - opacity) * math.exp(rates[3] * step[10])
    p[10] = min(max(odds / (ONE + odds), ONE - high), high)
