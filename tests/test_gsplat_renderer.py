"""The gsplat renderer without a GPU: gsplat's own Python runs, over kernels written in torch.

What is replaced is gsplat's compiled extension and nothing else, so every check that gsplat makes
of shapes and options is made here too. The extension's own rules are stated where it is replaced.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from gsplat.cuda import _torch_impl as gsplat_torch
from splat_scenes import cloud, small_camera, splat
from torch import Tensor

from renderers import Camera, Render, Renderer, SceneError, Splats, gsplat_cuda, join
from renderers.base import ALPHA_CUT, ALPHA_MAX, MEDIAN_ALPHA, NEAR, TRANSMITTANCE_STOP
from renderers.front import front_of, pair_alphas
from renderers.gsplat_cuda import GsplatRenderer
from renderers.reference import ReferenceRenderer
from renderers.sh import sh_basis

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
FIELDS = ("means", "quats", "scales", "opacities", "colors", "sh")


def backward(
    forward: Callable[..., Any], inputs: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> list[Tensor]:
    """Gradients of the inputs by running ``forward`` again under autograd; zero where unused."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    with torch.enable_grad():
        out = forward(*leaves)
    pairs = [(o, g) for o, g in zip(out, grads, strict=True) if g is not None and o.requires_grad]
    if not pairs:
        return [torch.zeros_like(value) for value in inputs]
    outputs, given = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, leaves, given, materialize_grads=True))


class Kernels:
    """gsplat's extension in torch: the same functions, arguments and outputs."""

    CameraModelType = None  # gsplat asks for both names, of the extension itself
    PINHOLE = 0

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _check(self, name: str, *inputs: Tensor | None) -> None:
        """CHECK_INPUT of Common.h, but for the device; data_ptr<float> wants float32."""
        self.calls.append(name)
        for value in inputs:
            if value is not None:
                assert value.is_contiguous(), name
                assert value.dtype in (torch.float32, torch.int32, torch.int64, torch.bool), name

    @staticmethod
    def project(
        splats: Sequence[Tensor], views: Sequence[Tensor], width, height, eps, near, far, fade
    ) -> list[Any]:
        """Radii, centres, depths, conics, fading of (means, quats, scales) in (poses, lenses)."""
        (means, quats, scales), (poses, lenses) = splats, views
        covars, _ = gsplat_torch._quat_scale_to_covar_preci(quats, scales, True, False)
        assert covars is not None
        return list(
            gsplat_torch._fully_fused_projection(
                means, covars, poses, lenses, width, height, eps, near, far, fade
            )
        )

    def projection_ewa_3dgs_packed_fwd(
        self, means, covars, quats, scales, opacities, poses, lenses, width, height, eps, near,
        far, clip, fade, model,
    ):  # fmt: skip
        self._check("project", means, quats, scales, poses, lenses, opacities)
        assert covars is None and clip == 0 and model == 0
        assert means.shape[0] > 0  # the extension divides by it
        for value in (means, quats, scales, opacities, poses, lenses):
            assert value.isfinite().all()
        radii, means2d, depths, conics, faded = self.project(
            (means, quats, scales), (poses, lenses), width, height, eps, near, far, fade
        )
        seen = (radii > 0).all(-1) & (opacities * (faded if fade else 1) >= ALPHA_CUT)
        cameras, rows = torch.nonzero(seen).unbind(1)
        parts = [value[seen] for value in (radii, means2d, depths, conics)]
        assert all(value.isfinite().all() for value in parts)
        batch = torch.zeros_like(rows)
        return None, batch, cameras, rows, *parts, faded[seen] if fade else torch.empty(0)

    def projection_ewa_3dgs_packed_bwd(
        self, means, covars, quats, scales, poses, lenses, width, height, eps, model, batch,
        cameras, rows, conics, faded, v_means2d, v_depths, v_conics, v_faded, pose_grad, sparse,
    ):  # fmt: skip
        self._check("project backward", means, v_means2d, v_depths, v_conics, v_faded)
        assert not sparse
        fade = faded is not None

        def forward(means, quats, scales, poses):  # visible pairs only, each a batch of one
            splats = [value[rows][:, None] for value in (means, quats, scales)]
            views = [value[cameras][:, None] for value in (poses, lenses)]
            found = self.project(splats, views, width, height, eps, 0.0, math.inf, fade)
            return [value[:, 0, 0] for value in found[1:] if value is not None]

        given = [v_means2d, v_depths, v_conics, *([v_faded] if fade else [])]
        v_means, v_quats, v_scales, v_poses = backward(
            forward, (means, quats, scales, poses), given
        )
        return v_means, None, v_quats, v_scales, v_poses if pose_grad else None

    def intersect_tile(
        self, means2d, radii, depths, images, rows, n_images, tile, wide, high, sort, segmented
    ):
        self._check("tiles", means2d, radii, depths, images, rows)
        assert sort and not segmented and radii.dtype == torch.int32 and images.dtype == torch.int64
        low = torch.floor((means2d - radii) / tile).long()
        end = torch.ceil((means2d + radii) / tile).long()
        bits = (wide * high).bit_length()
        keys, members = [], []
        for y in range(high):
            for x in range(wide):
                hit = (low[:, 0] <= x) & (x < end[:, 0]) & (low[:, 1] <= y) & (y < end[:, 1])
                member = torch.nonzero(hit)[:, 0]
                tiles = (images[member] << bits) | (y * wide + x)
                keys.append((tiles << 32) | depths[member].view(torch.int32).long())
                members.append(member)
        keys, order = torch.sort(torch.cat(keys), stable=True)
        return torch.bincount(torch.cat(members)), keys, torch.cat(members)[order].int()

    def intersect_offset(self, keys, n_images, wide, high):
        return gsplat_torch._isect_offset_encode(keys, n_images, wide, high)

    @staticmethod
    def blend(splats: Sequence[Tensor], width, height, tile, offsets, members):
        """Draw (means2d, conics, colors, opacities), one dense blend per tile."""
        means2d, conics, colors, opacities = splats
        tiles = []
        for pixels, seen in tile_lists(offsets, members, tile):
            weights, end, _ = tile_weights(pixels, means2d[seen], conics[seen], opacities[seen])
            tiles.append(torch.cat([weights @ colors[seen], 1 - end], 1))
        images, high, wide = offsets.shape
        grid = torch.stack(tiles).reshape(images, high, wide, tile, tile, -1)
        grid = grid.transpose(2, 3).reshape(images, high * tile, wide * tile, -1)
        grid = grid[:, :height, :width]
        return grid[..., :-1].contiguous(), grid[..., -1:].contiguous()

    def rasterize_to_pixels_3dgs_fwd(
        self, means2d, conics, colors, opacities, backgrounds, masks, width, height, tile,
        offsets, members,
    ):  # fmt: skip
        self._check("draw", means2d, conics, colors, opacities, offsets, members)
        assert masks is None and backgrounds is None
        assert offsets.dtype == members.dtype == torch.int32
        splats = (means2d, conics, colors, opacities)
        return *self.blend(splats, width, height, tile, offsets, members), torch.empty(0)

    def rasterize_to_pixels_3dgs_bwd(
        self, means2d, conics, colors, opacities, backgrounds, masks, width, height, tile,
        offsets, members, alphas, last, v_colors, v_alphas, absgrad,
    ):  # fmt: skip
        self._check("draw backward", v_colors, v_alphas)
        assert not absgrad and not v_colors.isnan().any() and not v_alphas.isnan().any()
        grads = backward(
            lambda *splats: self.blend(splats, width, height, tile, offsets, members),
            (means2d, conics, colors, opacities),
            (v_colors, v_alphas),
        )
        return None, *grads

    def rasterize_to_indices_3dgs(
        self, start, end, remaining, means2d, conics, opacities, width, height, tile, offsets,
        members,
    ):  # fmt: skip
        self._check("indices", remaining, means2d, conics, opacities, offsets, members)
        assert start == 0 and 0 < end < 2**32 and (remaining == 1).all()
        assert offsets.dtype == members.dtype == torch.int32 and offsets.dim() == 2
        assert len(means2d) > 0  # the extension divides by it
        found: list[tuple[int, int]] = []
        for pixels, seen in tile_lists(offsets, members, tile):
            _, _, used = tile_weights(pixels, means2d[seen], conics[seen], opacities[seen])
            inside = (pixels < torch.tensor([width, height])).all(1, keepdim=True)
            ids = pixels.long() @ torch.tensor([1, width])
            for k, n in torch.nonzero(used & inside).tolist():  # nearest first
                found.append((int(ids[k]), int(seen[n])))
        found.sort(key=lambda pair: pair[0])
        table = torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
        return table[:, 1] % len(means2d), table[:, 0].clone()

    def spherical_harmonics_fwd(self, degree, directions, coefficients, masks):
        self._check("harmonics", directions, coefficients, masks)
        assert (directions[masks] != 0).any(1).all()  # the extension divides by their length
        out = gsplat_torch._spherical_harmonics(degree, directions, coefficients)
        return torch.where(masks[:, None], out, math.nan)  # the extension leaves these unwritten

    def spherical_harmonics_bwd(self, k, degree, directions, coefficients, masks, grad, wanted):
        self._check("harmonics backward", directions, coefficients, masks, grad)

        def forward(coefficients, directions):
            return [gsplat_torch._spherical_harmonics(degree, directions, coefficients)[masks]]

        return backward(forward, (coefficients, directions), (grad[masks],))


def tile_lists(offsets: Tensor, members: Tensor, tile: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each tile of each image: centres (u, v) of its pixels, and its splats, nearest first."""
    edges = [*offsets.flatten().tolist(), len(members)]
    rows, columns = torch.meshgrid(torch.arange(tile), torch.arange(tile), indexing="ij")
    corner = torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5
    for place, (start, end) in enumerate(pairwise(edges)):
        x, y = place % offsets.shape[-1], place // offsets.shape[-1] % offsets.shape[-2]
        yield corner + tile * torch.tensor([x, y]), members[start:end].long()


def tile_weights(
    pixels: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (p, n), what shines through at the end (p,), and which splats a pixel uses (p, n)."""
    dx, dy = (means2d - pixels[:, None]).unbind(-1)
    a, b, c = conics.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = torch.clamp(opacities * torch.exp(-sigma), max=ALPHA_MAX)
    alpha = torch.where((sigma >= 0) & (alpha >= ALPHA_CUT), alpha, 0.0)
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones(len(pixels), 1), after], 1)
    open_ = after > TRANSMITTANCE_STOP
    weights = torch.where(open_, before[:, :-1] * alpha, 0.0)
    end = before.gather(1, open_.sum(1, keepdim=True))
    return weights, end, open_ & (alpha > 0)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    fake = Kernels()
    module = ModuleType("gsplat.cuda._backend")
    module._C = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", module)
    return fake


@pytest.fixture
def renderer(kernels: Kernels) -> GsplatRenderer:
    return GsplatRenderer(device="cpu")


def views() -> list[Camera]:
    """Cameras of two sizes, mixed, with lenses of their own."""
    middle = (0.0, 0.0, 3.0)
    return [
        Camera.look_at((0, 0, 0), middle, 60, 37, 21),
        Camera.look_at((1, 0, 0), middle, 60, 20, 33),
        Camera.look_at((0, 1, 0), middle, 45, 37, 21),
        Camera.look_at((-1, -1, 0.5), middle, 80, 37, 21),
    ]


def assert_close_to_reference(got: Render, want: Render) -> None:
    """Equal but for float32: a splat may gain or lose a pixel at its rim."""
    assert got.rgb.dtype == got.alpha.dtype == got.depth.dtype == torch.float32
    assert (want.alpha > 0.3).double().mean() > 0.3
    for left, right in ((got.rgb, want.rgb), (got.alpha, want.alpha)):
        error = (left.double() - right).abs()
        assert error.quantile(0.99) < 1e-5
        assert error.max() < 2 / 255
    both = ~got.depth.isnan() & ~want.depth.isnan()
    assert (both == ~want.depth.isnan()).double().mean() > 0.99
    assert (got.depth.double() - want.depth)[both].abs().quantile(0.99) < 1e-4


def test_it_is_a_renderer(renderer: GsplatRenderer) -> None:
    assert isinstance(renderer, Renderer)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_pictures_equal_the_reference(renderer: GsplatRenderer, degree: int) -> None:
    scene, base = cloud(150, degree=degree), (0.2, 0.4, 0.9)
    pictures = renderer.render_batch(scene, views(), base)
    for picture, camera in zip(pictures, views(), strict=True):
        assert picture.details is None
        assert_close_to_reference(picture, ReferenceRenderer().render(scene, camera, base))


@pytest.mark.parametrize("k", [3, 8, 15])
def test_harmonics_have_the_order_and_signs_of_gsplat(k: int) -> None:
    directions = torch.nn.functional.normalize(cloud(50).means.double(), dim=1)
    want = gsplat_torch._eval_sh_bases_fast(k + 1, directions)[:, 1:]
    torch.testing.assert_close(sh_basis(directions, k), want, rtol=0, atol=1e-7)


def test_one_call_for_all_cameras_of_a_size(
    renderer: GsplatRenderer, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = cloud(40)
    together = renderer.render_batch(scene, views(), details=True)
    assert kernels.calls.count("draw") == 2
    monkeypatch.setattr(gsplat_cuda, "BATCH_ELEMENTS", 2 * (37 * 21 + 40))
    shared = renderer.render_batch(scene, views(), details=True)
    assert kernels.calls.count("draw") == 2 + 3
    alone = [renderer.render(scene, camera, details=True) for camera in views()]
    for pictures in (shared, alone):
        for one, other, camera in zip(together, pictures, views(), strict=True):
            assert one.alpha.shape == (camera.height, camera.width)
            same_picture(one, other)
    assert renderer.render_batch(scene, []) == []


def same_picture(one: Render, other: Render) -> None:
    assert one.details is not None and other.details is not None
    for owner, twin, names in (
        (one, other, ("rgb", "alpha", "depth")),
        (one.details, other.details, ("median_depth", "top_ids", "top_weights")),
    ):
        for name in names:
            left, right = getattr(owner, name), getattr(twin, name)
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_splats_alone_fade_where_antialiased(renderer: GsplatRenderer) -> None:
    """Footprint variance 1.3, of which the filter gave 0.3: det 1 / 1.3^2, its root 1 / 1.3."""
    scene = splat(1.0, 0.6, RED)
    plain = renderer.render(scene, small_camera())
    faded = renderer.render(scene, small_camera(), antialiased=True, details=True)
    assert plain.alpha[4, 4].item() == pytest.approx(0.6, abs=1e-6)
    assert faded.alpha[4, 4].item() == pytest.approx(0.6 / 1.3, abs=1e-6)
    assert faded.alpha[4, 5].item() == pytest.approx(0.6 / 1.3 * math.exp(-0.5 / 1.3), abs=1e-6)
    assert faded.details is not None
    torch.testing.assert_close(faded.details.top_weights, faded.alpha, rtol=0, atol=1e-6)


def test_details_by_hand(renderer: GsplatRenderer) -> None:
    """Row 1 in front: 0.4; row 3 behind it: 0.6 x 0.7 = 0.42. Rows 0 and 2 cannot be drawn.

    The opacity passes one half at row 3; one pixel to the right it ends at 0.28 + 0.72 x 0.48:
    alphas 0.4 exp(-0.5 / 1.3) = 0.2723 and 0.7 exp(-0.5 / 1.3) = 0.4765, together 0.6190.
    """
    scene = join(
        [
            splat(0.5, 0.9, GREEN, quat=(0, 0, 0, 0)),
            splat(1.0, 0.4, RED),
            splat(0.7, 0.001, GREEN),
            splat(2.0, 0.7, BLUE, scale=0.2),
        ]
    )
    front = renderer.render(scene, small_camera(), details=True).details
    assert front is not None
    assert front.top_ids.dtype == torch.int64 and not front.top_weights.requires_grad
    assert front.top_ids[4, 4] == 3
    assert front.top_weights[4, 4].item() == pytest.approx(0.42, abs=1e-6)
    assert front.median_depth[4, 4] == 2.0
    assert front.median_depth[4, 5] == 2.0
    assert front.top_weights[4, 5].item() == pytest.approx((1 - 0.2723) * 0.4765, abs=1e-4)
    assert front.top_ids[0, 0] == -1
    assert front.top_weights[0, 0] == 0 and front.median_depth[0, 0].isnan()


def test_the_median_depth_belongs_to_the_splat_that_reaches_half(
    renderer: GsplatRenderer,
) -> None:
    scene = join([splat(3.0, 0.9, BLUE), splat(1.0, 0.5, RED)])
    front = renderer.render(scene, small_camera(), details=True).details
    assert front is not None
    assert front.median_depth[4, 4] == 1.0
    assert front.top_ids[4, 4] == 1


@pytest.mark.parametrize("antialiased", [False, True])
def test_details_equal_the_reference(renderer: GsplatRenderer, antialiased: bool) -> None:
    """In float32 the greatest of two weights may change places by a hair."""
    scene, camera = cloud(150), views()[0]
    got, want = (
        render(scene, camera, antialiased=antialiased, details=True)
        for render in (renderer.render, ReferenceRenderer().render)
    )
    assert_close_to_reference(got, want)
    assert got.details is not None and want.details is not None
    same = got.details.top_ids == want.details.top_ids
    assert same.double().mean() > 0.995
    error = (got.details.top_weights.double() - want.details.top_weights).abs()
    assert error.quantile(0.99) < 1e-5 and error.max() < 2 / 255
    median = got.details.median_depth.double()
    same = torch.isclose(median, want.details.median_depth, rtol=0, atol=1e-5, equal_nan=True)
    assert same.double().mean() > 0.995


def test_details_however_they_are_shared_out(
    renderer: GsplatRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, cameras = cloud(150), views()
    whole = renderer.render_batch(scene, cameras, details=True)
    calls: list[tuple[int, int]] = []
    pairs = gsplat_cuda._pairs
    monkeypatch.setattr(gsplat_cuda, "_pairs", lambda *a: calls.append((a[2], a[3])) or pairs(*a))
    monkeypatch.setattr(gsplat_cuda, "PAIRS_AT_ONCE", 40 * 256)
    shared = renderer.render_batch(scene, cameras, details=True)
    assert len(calls) > 3 * len(cameras)
    for one, other in zip(whole, shared, strict=True):
        same_picture(one, other)
        assert one.details is not None
        torch.testing.assert_close(one.details.top_ids >= 0, one.alpha > 0)
        assert (one.details.top_weights <= one.alpha + 1e-6).all()
        torch.testing.assert_close(~one.details.median_depth.isnan(), one.alpha >= MEDIAN_ALPHA)


def test_shares_cut_between_tiles_and_leave_none_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_cuda, "PAIRS_AT_ONCE", 10 * 256)
    assert list(gsplat_cuda._shares([3, 3, 8, 8, 12, 13, 40, 41])) == [
        (3, 13), (13, 40), (40, 41),
    ]  # fmt: skip
    assert list(gsplat_cuda._shares([7, 7, 7])) == []


@pytest.mark.parametrize(
    ("field", "bad"),
    [(field, bad) for field in FIELDS for bad in (math.nan, math.inf)]
    + [(field, 1e300) for field in FIELDS if field != "quats"],
)
def test_rows_outside_of_float32_are_left_out(
    renderer: GsplatRenderer, field: str, bad: float
) -> None:
    scene = cloud(60, degree=1).to(torch.float64)
    getattr(scene, field)[7] = bad
    rows = torch.nonzero(torch.arange(60) != 7)[:, 0]
    camera = Camera.from_fov(60, 33, 21)
    got = renderer.render(scene, camera, details=True)
    want = renderer.render(scene[rows], camera, details=True)
    torch.testing.assert_close(got.rgb, want.rgb, rtol=0, atol=0)
    assert got.details is not None and want.details is not None
    ids = want.details.top_ids
    assert (got.details.top_ids == torch.where(ids < 0, -1, rows[ids])).all()
    assert (ids > 7).any() and (ids < 0).any()


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e300])
def test_only_the_direction_of_quaternions_counts(renderer: GsplatRenderer, size: float) -> None:
    thin = (0.2, 0.02, 0.02)
    unit, other = (
        splat(1.0, 0.8, RED, scale=thin, quat=(0.6 * s, 0, 0, 0.8 * s)) for s in (1.0, size)
    )
    want, got = (renderer.render(one, small_camera()).rgb for one in (unit, other))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e3, 1e8, 1e30])
def test_huge_splats_fill_the_image(renderer: GsplatRenderer, scale: float) -> None:
    out = renderer.render(splat(2.0, 0.7, RED, scale=scale), small_camera(20, 18))
    torch.testing.assert_close(out.alpha, torch.full_like(out.alpha, 0.7), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.depth, torch.full_like(out.depth, 2.0), rtol=0, atol=1e-4)


def test_the_near_plane(renderer: GsplatRenderer) -> None:
    near, beyond = (splat(NEAR * f, 0.9, RED, scale=1e-4) for f in (0.99, 1.01))
    assert renderer.render(near, small_camera()).alpha.max() == 0
    alpha = renderer.render(beyond, small_camera()).alpha
    assert alpha[4, 4].item() == pytest.approx(0.9, abs=1e-6)


def test_splats_beyond_gsplats_default_far_plane_are_drawn(renderer: GsplatRenderer) -> None:
    out = renderer.render(splat(1e12, 0.7, RED, scale=1e11), small_camera())
    assert out.alpha[4, 4].item() == pytest.approx(0.7, abs=1e-6)


@pytest.mark.parametrize(
    "scene", [Splats.empty(), splat(-1.0, 0.9, RED), splat(1.0, 0.001, RED), splat(1e16, 0.9, RED)]
)
def test_nothing_in_view_shows_the_background(renderer: GsplatRenderer, scene: Splats) -> None:
    scene = Splats(*(getattr(scene, name).requires_grad_() for name in FIELDS[:-1]))
    camera = small_camera()
    camera = camera.posed(camera.cam_from_world.requires_grad_())
    out = renderer.render(scene, camera, (0.25, 0.5, 1.0), details=True)
    assert (out.rgb == torch.tensor([0.25, 0.5, 1.0])).all() and (out.alpha == 0).all()
    assert out.depth.isnan().all() and out.details is not None
    assert (out.details.top_ids == -1).all() and (out.details.top_weights == 0).all()
    assert out.details.median_depth.isnan().all()
    (out.rgb.sum() + out.alpha.sum()).backward()
    for leaf in (camera.cam_from_world, *(getattr(scene, name) for name in FIELDS[:-1])):
        assert leaf.grad is not None and (leaf.grad == 0).all()


@pytest.mark.parametrize("degree", [0, 2])
def test_gradients_equal_the_reference(renderer: GsplatRenderer, degree: int) -> None:
    """Of colour, opacity and depth, in every field and in the pose; the camera sits on a splat."""
    camera = Camera.look_at((0, 0, 0), (0.1, 0.05, 3), 60, 24, 18)
    here = splat(0.0, 0.9, RED)
    scene = join([round_cloud(40, degree), here, splat(2.0, math.nan, RED)]).to(torch.float64)
    weights = torch.rand(5, 18, 24, generator=torch.Generator().manual_seed(3)).double()
    got, want = (
        gradients(render, scene, camera, weights)
        for render in (renderer.render, ReferenceRenderer().render)
    )
    assert list(got) == ["pose", *(FIELDS if degree else FIELDS[:-1])]
    for name, value in got.items():
        assert value.isfinite().all(), name
        scale = want[name].abs().max()
        assert scale > 0, name
        torch.testing.assert_close(value, want[name], rtol=1e-3, atol=1e-3 * scale.item())


def round_cloud(n: int, degree: int) -> Splats:
    """Splats far from every cut-off: faint enough that no pixel is finished, not too thin."""
    scene = cloud(n, seed=5, degree=degree)
    return Splats(
        scene.means, scene.quats, scene.scales.clamp(0.05, 0.3), 0.1 + 0.4 * scene.opacities,
        scene.colors, scene.sh,
    )  # fmt: skip


def gradients(
    render: Callable[[Splats, Camera], Render], scene: Splats, camera: Camera, weights: Tensor
) -> dict[str, Tensor]:
    names = [name for name in FIELDS if getattr(scene, name) is not None]
    leaves = {name: getattr(scene, name).clone().requires_grad_() for name in names}
    pose = camera.cam_from_world.double().requires_grad_()
    out = render(Splats(**leaves), camera.posed(pose))
    known = out.alpha.detach() > 0.05
    loss = (out.rgb * weights[:3].permute(1, 2, 0)).sum() + (out.alpha * weights[3]).sum()
    loss = loss + (out.depth[known] * weights[4][known]).sum()
    loss.backward()
    grads = {"pose": pose.grad, **{name: leaf.grad for name, leaf in leaves.items()}}
    return {name: grad.double() for name, grad in grads.items() if grad is not None}


def test_unknown_depth_sends_no_gradient(renderer: GsplatRenderer) -> None:
    scene = splat(1.0, 0.6, RED)
    scales = scene.scales.requires_grad_()
    out = renderer.render(scene, small_camera(31, 31))
    assert out.depth.isnan().any()
    torch.nan_to_num(out.depth).sum().backward()
    assert scales.grad is not None and scales.grad.isfinite().all()


def test_the_intrinsics_get_no_gradient(renderer: GsplatRenderer) -> None:
    camera = small_camera()
    camera = Camera(camera.px_from_cam.requires_grad_(), camera.cam_from_world, 9, 9)
    with pytest.raises(SceneError) as caught:
        renderer.render_batch(splat(1.0, 0.6, RED), [small_camera(), camera])
    assert str(caught.value) == (
        "the intrinsics get no gradient\n"
        "  why: this renderer differentiates in the splats and in the camera's pose only\n"
        "  fix: detach px_from_cam, or use renderer 'reference'"
    )
    with torch.no_grad():
        assert renderer.render(splat(1.0, 0.6, RED), camera).alpha.max() > 0.5


def test_splats_are_prepared_once_and_again_when_written_to(
    renderer: GsplatRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    prepare = gsplat_cuda._prepare
    monkeypatch.setattr(
        gsplat_cuda, "_prepare", lambda *a: prepared.append(len(a[0])) or prepare(*a)
    )
    scene, camera = splat(1.0, 0.6, RED), small_camera()
    first = renderer.render(scene, camera)
    renderer.render(scene, camera)
    with torch.inference_mode():
        renderer.render(scene, camera)
    assert len(prepared) == 1
    scene.opacities[0] = 0.3
    second = renderer.render(scene, camera)
    assert len(prepared) == 2
    assert first.alpha.max().item() == pytest.approx(0.6)
    assert second.alpha.max().item() == pytest.approx(0.3)
    scene.colors.requires_grad_()
    assert renderer.render(scene, camera).rgb.requires_grad
    with torch.no_grad():
        assert not renderer.render(scene, camera).rgb.requires_grad


def test_without_kernels_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gsplat.cuda._backend")
    module._C = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", module)
    with pytest.raises(SceneError, match="neither compiled kernels nor a CUDA toolkit") as caught:
        GsplatRenderer()
    assert caught.value.what == "renderer 'gsplat' cannot run here"
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", None)
    with pytest.raises(SceneError, match="do not load: ModuleNotFoundError"):
        GsplatRenderer()


def test_importing_the_module_loads_no_gsplat() -> None:
    code = "import sys, renderers.gsplat_cuda; sys.exit(any('gsplat.' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is in front: pairs against a dense blend in float64, pixel by pixel.


def dense_front(alphas: Tensor, depths: Tensor) -> tuple[list[float], list[int], list[float]]:
    """Median depth, best column and its weight of each row of ``alphas``, nearest first."""
    medians, best, weights = [], [], []
    for row in alphas.tolist():
        through, opacity, median, top, weight = 1.0, 0.0, math.nan, -1, 0.0
        for column, alpha in enumerate(row):
            if through * (1 - alpha) <= TRANSMITTANCE_STOP:
                break
            share = through * alpha
            if share > weight:
                top, weight = column, share
            opacity, through = opacity + share, through * (1 - alpha)
            if math.isnan(median) and opacity >= MEDIAN_ALPHA:
                median = depths[column].item()
        medians.append(median)
        best.append(top)
        weights.append(weight)
    return medians, best, weights


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strength", [0.2, 0.6, ALPHA_MAX])
def test_front_of_random_pairs_equals_a_dense_blend(seed: int, strength: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    p, n = 60, 37
    alphas = strength * torch.rand(p, n, generator=rng, dtype=torch.float64)
    listed = torch.rand(p, n, generator=rng) < 0.4
    listed[5] = listed[11] = False
    alphas[17] = 0.0  # listed, but too faint everywhere
    alphas[listed & (torch.rand(p, n, generator=rng) < 0.2)] = 0.0
    depths = torch.rand(n, generator=rng, dtype=torch.float64).sort().values
    rows, columns = torch.nonzero(listed).unbind(1)
    front = front_of(3 * rows, alphas[listed], depths[columns])

    assert front.pixels.tolist() == [3 * row for row in range(p) if row not in (5, 11)]
    medians, best, weights = dense_front(alphas * listed, depths)
    kept = [row for row in range(p) if row not in (5, 11)]
    picked = [columns[i].item() if i >= 0 else -1 for i in front.top_pairs.tolist()]
    assert picked == [best[row] for row in kept]
    assert (front.top_pairs < 0).sum() >= 1
    want = torch.tensor([weights[row] for row in kept], dtype=torch.float64)
    torch.testing.assert_close(front.top_weights, want, rtol=1e-12, atol=0)
    want = torch.tensor([medians[row] for row in kept], dtype=torch.float64)
    torch.testing.assert_close(front.median_depth, want, rtol=0, atol=0, equal_nan=True)


def test_front_is_the_nearest_of_equals() -> None:
    """Weights 1/4, 3/4 x 1/3 = 1/4 and 1/2 x 1/2 = 1/4; opacity one half at the second."""
    alphas = torch.tensor([0.25, 1 / 3, 0.5], dtype=torch.float64)
    front = front_of(torch.tensor([2, 2, 2]), alphas, torch.tensor([1.0, 2.0, 3.0]).double())
    assert front.pixels.tolist() == [2] and front.top_pairs.tolist() == [0]
    assert front.top_weights.tolist() == [0.25] and front.median_depth.tolist() == [2.0]


def test_front_is_never_the_splat_before_which_a_pixel_is_finished() -> None:
    """0.98^150 = 0.048 shines through to a wall, whose weight would be the greatest: but it would
    leave 4.8e-5, less than TRANSMITTANCE_STOP. Half is reached at the 35th: 0.98^35 = 0.493.
    """
    alphas = torch.tensor([0.02] * 150 + [ALPHA_MAX], dtype=torch.float64)
    front = front_of(torch.zeros(151, dtype=torch.int64), alphas, torch.arange(1.0, 152).double())
    assert front.top_pairs.tolist() == [0] and front.top_weights.tolist() == [0.02]
    assert front.median_depth.tolist() == [35.0]


def test_front_of_no_pairs_is_empty() -> None:
    none = torch.zeros(0)
    front = front_of(torch.zeros(0, dtype=torch.int64), none, none)
    assert len(front.pixels) == len(front.median_depth) == len(front.top_pairs) == 0


def test_alphas_of_pairs_by_hand() -> None:
    """A splat of variance 1.3 at the centre of pixel (4, 2) of an image 10 wide.

    One pixel to the right exp(-0.5 / 1.3); far away below the cut; and never above ALPHA_MAX.
    """
    pixels = torch.tensor([24, 25, 29, 24])
    means2d = torch.tensor([[4.5, 2.5]] * 4)
    conics = torch.tensor([[1 / 1.3, 0.0, 1 / 1.3]] * 4)
    alphas = pair_alphas(pixels, 10, means2d, conics, torch.tensor([0.6, 0.6, 0.6, 1.0]))
    want = torch.tensor([0.6, 0.6 * math.exp(-0.5 / 1.3), 0.0, ALPHA_MAX])
    torch.testing.assert_close(alphas, want, rtol=0, atol=1e-7)
