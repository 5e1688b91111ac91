"""Splats: shapes, rows, joining, and what is refused."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from splat_scenes import cloud

from renderers import SceneError, Splats, join

FIELDS = ("means", "quats", "scales", "opacities", "colors", "sh")


@pytest.fixture
def no_shape_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users run without the checks of conftest.py: shows them what we do with their input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def same(a: Splats, b: Splats) -> None:
    for name in FIELDS:
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left, right)


def test_length_and_empty() -> None:
    assert len(cloud(7)) == 7
    assert len(Splats.empty()) == 0
    assert Splats.empty().means.shape == (0, 3)


def test_lists_become_tensors(no_shape_hook: None) -> None:
    one = Splats([[0, 0, 1]], [[1, 0, 0, 0]], [[1, 1, 1]], [1.0], [[0, 0, 0]])  # pyright: ignore
    assert isinstance(one.means, torch.Tensor) and len(one) == 1


@pytest.mark.parametrize("degree", [0, 2])
def test_rows_by_mask_index_and_slice(degree: int) -> None:
    scene = cloud(6, degree=degree)
    mask = torch.tensor([True, False, False, True, False, True])
    same(scene[mask], scene[torch.tensor([0, 3, 5])])
    same(scene[1:3], scene[torch.tensor([1, 2])])
    assert torch.equal(scene[torch.tensor([5, 0])].means, scene.means[[5, 0]])
    assert len(scene[0:0]) == 0


def test_join_keeps_order() -> None:
    scene = cloud(6)
    same(join([scene[:2], scene[2:2], scene[2:]]), scene)


def test_join_of_nothing_is_empty() -> None:
    assert len(join([])) == 0
    assert len(join([Splats.empty(), Splats.empty()])) == 0


@pytest.mark.parametrize("degrees", [(0, 1), (3, 0), (1, 2), (3, 1)])
def test_join_pads_spherical_harmonics_with_zeros(degrees: tuple[int, int]) -> None:
    first, second = (cloud(3, seed, degree) for seed, degree in enumerate(degrees))
    joined = join([first, second])
    k = (max(degrees) + 1) ** 2 - 1
    assert joined.sh is not None and joined.sh.shape == (6, k, 3)
    for rows, part in ((joined.sh[:3], first), (joined.sh[3:], second)):
        used = 0 if part.sh is None else part.sh.shape[1]
        assert not rows[:, used:].any()
        assert part.sh is None or torch.equal(rows[:, :used], part.sh)


def test_join_carries_gradients() -> None:
    first, second = cloud(2, 0), cloud(2, 1, degree=1)
    first.means.requires_grad_()
    join([first, second]).means.sum().backward()
    assert first.means.grad is not None and (first.means.grad == 1).all()


def test_to_changes_every_field() -> None:
    scene = cloud(3, degree=1).to(torch.float64)
    assert all(getattr(scene, name).dtype == torch.float64 for name in FIELDS)


def test_detach_and_requires_grad() -> None:
    scene = cloud(3, degree=1)
    assert not scene.requires_grad
    assert scene.sh is not None
    scene.sh.requires_grad_()
    assert scene.requires_grad
    assert not scene.detach().requires_grad


def test_immutable() -> None:
    with pytest.raises(AttributeError):
        cloud(1).means = torch.zeros(1, 3)  # pyright: ignore


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_not_drawable(name: str, bad: float) -> None:
    scene = cloud(4, degree=1)
    getattr(scene, name)[2] = bad
    assert scene.drawable.tolist() == [True, True, False, True]


def test_zero_quaternions_are_not_drawable() -> None:
    scene = cloud(2)
    scene.quats[0] = 0.0
    assert scene.drawable.tolist() == [False, True]
    assert Splats.empty().drawable.shape == (0,)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("quats", (4, 3), "it must be (n, 4) with n = 4"),
        ("scales", (5, 3), "it must be (n, 3) with n = 4"),
        ("opacities", (4, 1), "it must be (n) with n = 4"),
        ("colors", (4, 4), "it must be (n, 3) with n = 4"),
        ("sh", (3, 3, 3), "it must be (n, k, 3) with n = 4, k = 3"),
    ],
)
def test_wrong_shapes_are_refused(
    no_shape_hook: None, name: str, shape: tuple[int, ...], wanted: str
) -> None:
    scene = cloud(4, degree=1)
    values = {field: getattr(scene, field) for field in FIELDS} | {name: torch.zeros(shape)}
    with pytest.raises(SceneError) as caught:
        Splats(**values)
    assert caught.value.what == f"Splats.{name} has shape {shape}"
    assert caught.value.why == wanted
    assert caught.value.fix == f"pass {name} with the shape above"


@pytest.mark.parametrize("k", [1, 4, 16])
def test_wrong_numbers_of_harmonics_are_refused(k: int) -> None:
    scene = cloud(2)
    with pytest.raises(SceneError, match=f"{k} spherical harmonics coefficients per splat"):
        Splats(
            scene.means,
            scene.quats,
            scene.scales,
            scene.opacities,
            scene.colors,
            torch.zeros(2, k, 3),
        )
