"""The smooth correction of depth: what it gives back, what it ignores, and where it goes on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scenegen.world.scale_field import NODES, ScaleField, _solved_in_band, fit_scale_field

ALL = torch.ones(60, 80, dtype=torch.bool)


def hilly() -> torch.Tensor:
    """Logarithms of depth between 1.1 and 14 m, different in every direction."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    return 1.4 + 0.7 * torch.sin(rows / 9) + 0.6 * torch.cos(columns / 7 + rows / 20)


def test_a_field_is_bilinear_between_its_nodes() -> None:
    nodes = torch.zeros(NODES, NODES)
    nodes[0, 0], nodes[0, 1] = 0.7, 0.35
    side = 10 * (NODES - 1) + 1
    field = ScaleField(nodes, 0.5, 2.0).apply(torch.full((side, side), 3.0))
    base = 3.0 + 0.5 * (3.0 - 2.0)
    assert float(field[0, 0]) == pytest.approx(base + 0.7)
    assert float(field[0, 5]) == pytest.approx(base + 0.525)
    assert float(field[5, 10]) == pytest.approx(base + 0.175)
    assert float(field[-1, -1]) == pytest.approx(base)


def test_a_smooth_error_and_a_power_are_found_in_spite_of_outliers() -> None:
    log_depth = hilly()
    error = ScaleField(0.1 * torch.linspace(-1, 1, NODES)[:, None].expand(NODES, NODES), 0.2, 1.4)
    known = error.apply(log_depth)
    known[::7] += 2.0
    found = fit_scale_field(log_depth, known, ALL, 10_000)
    assert found.power == pytest.approx(0.2, abs=0.03)
    rest = (found.apply(log_depth) - error.apply(log_depth)).abs()
    assert rest.median() < 0.01 and rest.max() < 0.08


def test_what_is_unknown_takes_the_scale_of_its_surroundings() -> None:
    use = ALL.clone()
    use[:, 40:] = False
    found = fit_scale_field(hilly(), hilly() + math.log(1.5), use, 10_000)
    assert (found.nodes - math.log(1.5)).abs().max() < 0.01
    assert abs(found.power) < 1e-3


def test_the_same_bits_for_any_number_of_threads() -> None:
    log_depth, before = hilly().repeat(6, 6), torch.get_num_threads()
    use, results = torch.ones(360, 480, dtype=torch.bool), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found = fit_scale_field(log_depth, log_depth.flip(0), use, 20_000)
            results.append((found.nodes, found.power))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]


def test_the_band_is_solved_as_the_whole_matrix_is() -> None:
    generator = np.random.default_rng(3)
    normal = np.diag(generator.uniform(5, 6, NODES**2))
    for away in (1, NODES - 1, NODES, NODES + 1):
        beside = generator.uniform(-0.3, 0.3, NODES**2 - away)
        normal += np.diag(beside, away) + np.diag(beside, -away)
    right = generator.uniform(-1, 1, NODES**2)
    answer = _solved_in_band(normal, right)
    np.testing.assert_allclose(answer, np.linalg.solve(normal, right), rtol=1e-9, atol=1e-12)
