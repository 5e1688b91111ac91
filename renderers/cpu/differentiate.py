"""The CPU renderer as one differentiable step: splats and pose in, picture out, gradients back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.base import EPS2D, Render
from renderers.camera import Camera
from renderers.cpu.frame import LIMITS, Frame, Scratch
from renderers.cpu.harmonics import paint_back
from renderers.cpu.pack import SCALE_MAX, PackedScene, pack
from renderers.cpu.project_back import GROUP, POSE, SUMS, gather, project_back
from renderers.cpu.raster_back import rasterise_back
from renderers.errors import SceneError
from renderers.kernels import RENDER_LOCK
from renderers.splats import Splats

f32 = np.float32


def wants_gradients(splats: Splats, camera: Camera) -> bool:
    """Whether autograd is to record this picture.

    Raises:
        SceneError: The intrinsics require a gradient, and grad mode is on.
    """
    if not torch.is_grad_enabled():
        return False
    if camera.px_from_cam.requires_grad:
        raise SceneError(
            "the intrinsics get no gradient",
            why="this renderer differentiates in the splats and in the camera's pose only",
            fix="detach px_from_cam, or use renderer 'reference'",
        )
    return splats.requires_grad or camera.cam_from_world.requires_grad


def render_with_gradients(
    splats: Splats,
    camera: Camera,
    background: Sequence[float],
    antialiased: bool,
    details: bool,
) -> Render:
    """As CpuRenderer.render, recorded by autograd.

    Splats are packed anew, in their own order: culling is at its best where rows that follow each
    other are neighbours in space, as pack.morton_order puts them.
    """
    plain = splats.to(torch.device("cpu")).to(torch.float32)
    sh = plain.sh if plain.sh is not None else plain.colors.new_empty(len(plain), 0, 3)
    frames: list[Render] = []
    rgb, alpha, depth = _Picture.apply(
        plain.means.contiguous(),
        plain.quats.contiguous(),
        plain.scales.contiguous(),
        plain.opacities.contiguous(),
        plain.colors.contiguous(),
        sh.contiguous(),
        camera.cam_from_world.to("cpu", torch.float64),
        camera.center.to("cpu", torch.float64),
        (camera, tuple(background), antialiased, details, frames),
    )
    return Render(rgb, alpha, depth, frames[0].details)


class _Picture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        means, quats, scales, opacities, colors, sh, pose, _, asked = inputs
        camera, background, antialiased, details, frames = asked
        splats = Splats(means, quats, scales, opacities, colors, sh if sh.shape[1] else None)
        with RENDER_LOCK:
            segments = (pack(splats),) if len(splats) else ()
            still = Camera(camera.px_from_cam, pose, camera.width, camera.height)
            frame = Frame(PackedScene(segments, ()), still, antialiased, Scratch(), numbered=True)
            traces = np.empty((3, camera.height, camera.width), f32)
            render = frame.picture(background, details, traces)
        frames.append(render)
        ctx.frame, ctx.traces = frame, traces
        ctx.background, ctx.antialiased = background, antialiased
        ctx.save_for_backward(*inputs[:-1], render.alpha, render.depth)
        return render.rgb, render.alpha, render.depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore
        means, quats, scales, opacities, colors, sh, pose, center, *picture = ctx.saved_tensors
        frame: Frame = ctx.frame
        fields = (means, quats, scales, opacities, colors)
        make = torch.empty_like if len(frame.shown) else torch.zeros_like
        grads = [torch.zeros_like(means), *map(make, fields[1:])]
        grad_sh, grad_center = torch.zeros_like(sh), torch.zeros_like(center)
        with RENDER_LOCK:
            drawn = (ctx.traces, *(part.detach().numpy() for part in picture))
            sums = _sums(frame, ctx.background, drawn, gradients)
            plain = [field.detach().numpy() for field in fields]
            out = [grad.numpy() for grad in grads]
            if sh.shape[1]:
                own = (sh.detach().numpy(), plain[4], sums, grad_sh.numpy(), out[0])
                paint_back(frame.records, frame.shown, plain[0], frame.eye, *own)
                grad_center = -grads[0].double().sum(0)
            grad_pose = np.empty((-(-len(frame.shown) // GROUP), POSE))
            project_back(
                frame.records,
                frame.shown,
                sums,
                *plain[:4],
                pose.detach()[:3].numpy().astype(f32),
                tuple(f32(value) for value in frame.lens),
                f32(EPS2D),
                ctx.antialiased,
                f32(SCALE_MAX),
                *out,
                grad_pose,
            )
        return (*grads, grad_sh, _pose_gradient(grad_pose), grad_center, None)


def _sums(
    frame: Frame,
    background: Sequence[float],
    drawn: tuple[np.ndarray, ...],
    gradients: Sequence[Tensor],
) -> np.ndarray:
    """(r, SUMS) of the frame's records. See raster_back.rasterise_back."""
    lists = frame.lists
    by_tile = np.empty((len(lists.members), SUMS), f32)
    rasterise_back(
        frame.records,
        lists.starts,
        lists.members,
        lists.homes,
        frame.tiles_x,
        frame.threads,
        LIMITS,
        np.array(background, f32),
        drawn,
        tuple(gradient.contiguous().numpy() for gradient in gradients),
        by_tile,
    )
    sums = np.empty((len(frame.records), SUMS), f32)
    gather(lists.firsts, by_tile, sums)
    return sums


def _pose_gradient(by_group: np.ndarray) -> Tensor:
    """(4, 4) gradient of cam_from_world."""
    summed = torch.from_numpy(by_group.sum(0))
    gradient = torch.zeros(4, 4, dtype=torch.float64)
    gradient[:3, :3], gradient[:3, 3] = summed[:9].reshape(3, 3), summed[9:]
    return gradient
