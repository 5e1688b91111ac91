"""Refinement: splats change a little, until they render as the views that a world remembers.

Gradient descent on the photometric loss (Kerbl et al. 2023, section 5) for splats that already lie
where depth put them. Each stays within a pixel of its place and near its size: what moves is where
edges run between pixels, which sharpens views that were never stored, too.

Targets are the pixels that a view brought itself. The rest of a stored view is a drawing of the
world as it was then: to fit it would be to learn its flaws. Splats are pruned and split only when
a budget is given: there is one per pixel, and to split more was measured to lower the quality of
views that were never stored.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from renderers import Camera, Renderer, SceneError, Splats
from renderers.kernels import RENDER_LOCK
from scenegen.fields import box_of
from scenegen.splatting.density import pruned_and_split
from scenegen.splatting.losses import photometric_loss, psnr
from scenegen.splatting.stepping import COLUMNS, REACH, STRETCH, gather, in_sight, move
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
OPACITY_LIMIT = 0.995
"""Opacities stay below this and above its complement, where their logit still moves."""
BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SKY_SHELL = 0.6
"""Splats beyond this share of the sky's radius are sky, and keep their places."""

WIDTHS = (3, 4, 3, 1, 3)
ANCHORS = 11
"""Numbers per splat that limit its change: first mean (3), unit quaternion (4) and scales (3), and
its size or 0 for sky."""


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
    """The splats given, changed; the very same object where nothing was gained."""
    rows: Int64[Tensor, " m"]
    """Row in the splats given that each of ``splats`` came from, rising."""
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
    budget: int | None = None,
    solid: bool = False,
) -> Refined:
    """Change splats until they render as the views, as :func:`refine_events` does; the result."""
    *_, last = refine_events(
        splats,
        views,
        renderer,
        rounds=rounds,
        seed=seed,
        sky_radius=sky_radius,
        budget=budget,
        solid=solid,
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
    budget: int | None = None,
    solid: bool = False,
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
        budget: Half way, faded splats are taken away and those that are pulled about most are
            split, up to this many splats in all. Left out, every splat stays.
        solid: Every other step is taken before white instead of black: splats that let it through
            learn to cover it, and with it whatever lies or will lie behind them.

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
    best = Refined(splats, torch.arange(len(splats)), before, before, 0)
    for number in range(rounds):
        for place in torch.randperm(len(visits), generator=generator).tolist():
            share = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done / total))
            background = WHITE if solid and done % 2 else BLACK
            loss = _step(state, targets[visits[place]], renderer, share, background)
            done += 1
            yield RefineProgress(done, total, visits[place], loss)
        if number + 1 in (rounds // 2, rounds):
            after = tuple(_psnr(state, target, renderer) for target in targets)
            kept = all(a >= b for a, b, t in zip(after, before, targets, strict=True) if t.observed)
            if kept and sum(after) > sum(best.after):
                best = Refined(state.splats(), torch.from_numpy(state.rows), before, after, done)
        if budget is not None and number + 1 == rounds // 2:
            state.rearrange(budget)
            targets = [_Target(view, state) for view in views]
    yield best


class _State:
    """The splats on their way, row by row as they came."""

    def __init__(self, splats: Splats, sky_radius: float | None) -> None:
        self.given = splats
        fields = (splats.means, splats.quats, splats.scales, splats.opacities, splats.colors)
        plain = [field.detach().cpu().float().reshape(len(splats), -1) for field in fields]
        self.table = torch.cat(plain, 1).numpy()
        self.sh = None if splats.sh is None else splats.sh.detach().cpu().float()
        self.anchors = np.zeros((len(splats), ANCHORS), f32)
        self.anchors[:, :10] = self.table[:, :10]
        length = np.linalg.norm(self.table[:, 3:7], axis=1, keepdims=True)
        self.anchors[:, 3:7] /= np.maximum(length, f32(1e-30))
        self.anchors[:, 7:10] = scales = np.abs(self.table[:, 7:10])
        place = np.linalg.norm(self.table[:, :3], axis=1)
        moves = place <= (math.inf if sky_radius is None else SKY_SHELL * sky_radius)
        self.anchors[:, 10] = np.where(moves, np.sort(scales, axis=1)[:, 1], f32(0.0))
        self.moments = np.zeros((len(splats), 2, COLUMNS), f32)
        self.seen = np.zeros(len(splats), np.int32)
        self.pulls = np.zeros(len(splats), f32)
        self.rows = np.arange(len(splats))
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
            None if given.sh is None else given.sh.detach()[torch.from_numpy(self.rows)],
        )

    def rearrange(self, budget: int) -> None:
        """Prune and split; see :func:`density.pruned_and_split`. Halves start anew."""
        self.table, rows = pruned_and_split(self.table, self.pulls, budget)
        whole = np.bincount(rows, minlength=len(self.pulls))[rows] == 1
        self.anchors, self.moments, self.seen = (
            values[rows] for values in (self.anchors, self.moments, self.seen)
        )
        self.anchors[~whole, :3] = self.table[~whole, :3]
        self.anchors[~whole, 7:10] = np.abs(self.table[~whole, 7:10])
        self.moments[~whole], self.seen[~whole] = 0.0, 0
        self.pulls, self.rows = self.pulls[rows], self.rows[rows]
        self.sh = None if self.sh is None else self.sh[torch.from_numpy(rows)]

    def leaves(self, rows: np.ndarray) -> list[Tensor]:
        """The fields of some rows, to be differentiated by. The next call takes their memory."""
        if self._parts[0].size < 3 * len(rows):
            self._parts = [np.empty(width * len(rows), f32) for width in WIDTHS]
        parts = [
            part[: width * len(rows)].reshape(-1, width)
            for part, width in zip(self._parts, WIDTHS, strict=True)
        ]
        with RENDER_LOCK:
            gather(self.table, rows, *parts)
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
        rows, columns = box_of(view.known)
        top, bottom, left, right = rows.start, rows.stop, columns.start, columns.stop
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
        in_sight(state.table, pose, tuple(f32(x) for x in numbers), flags)
    return np.flatnonzero(flags).astype(np.int32)


def _psnr(state: _State, target: _Target, renderer: Renderer) -> float:
    with torch.no_grad():
        leaves = [leaf.detach() for leaf in state.leaves(target.rows)]
        picture = renderer.render(state.visible(leaves, target.rows), target.camera)
    return psnr(picture.rgb, target.rgb, target.weights)


def _step(
    state: _State,
    target: _Target,
    renderer: Renderer,
    share: float,
    background: tuple[float, float, float],
) -> float:
    """One step for one view; returns its loss. ``share`` scales the rates."""
    with torch.enable_grad():
        leaves = state.leaves(target.rows)
        scene = state.visible(leaves, target.rows)
        picture = renderer.render(scene, target.camera, background)
        loss = photometric_loss(picture.rgb, target.rgb, target.weights)
        if not loss.requires_grad:  # nothing is in sight
            return float(loss)
        gradients = torch.autograd.grad(loss * target.share, leaves, materialize_grads=True)
    rates = (MEAN_RATE, QUAT_RATE, SCALE_RATE, OPACITY_RATE, COLOR_RATE)
    with RENDER_LOCK:
        move(
            state.table,
            target.rows,
            tuple(gradient.contiguous().numpy() for gradient in gradients),
            state.moments,
            state.seen,
            state.pulls,
            state.anchors,
            tuple(f32(rate * share) for rate in rates),
            (f32(REACH), f32(STRETCH), f32(OPACITY_LIMIT)),
        )
    return float(loss.detach())
