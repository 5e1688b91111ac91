"""choose(): the first that runs, a name that runs or raises, and what is said about it."""

from __future__ import annotations

import logging
import math

import pytest

from renderers import RENDERERS, Backend, Renderer, SceneError, backends, choose, make_renderer


def backend(target: str, missing: str | None = None) -> Backend:
    return Backend(target, lambda: missing, f"install {target}", "for tests")


TABLE = {
    "best": backend("no_such_module:Thing", "no accelerator"),
    "good": backend("math:pi"),
    "poor": backend("math:e"),
}
NONE = {name: backend("math:pi", f"no {name}") for name in ("a", "b")}


@pytest.fixture(autouse=True)
def _nothing_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_announced", set())


def test_auto_takes_the_first_that_runs() -> None:
    assert choose("test", TABLE) == ("good", math.pi)


def test_a_name_is_taken_even_when_better_ones_run() -> None:
    assert choose("test", TABLE, "poor") == ("poor", math.e)


def test_the_choice_is_logged_once_with_what_was_skipped(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scenegen"):
        choose("test", TABLE)
        choose("test", TABLE)
        choose("test", TABLE, "poor")
    assert [record.message for record in caplog.records] == [
        "test: good (skipped best: no accelerator)",
        "test: poor",
    ]


def test_a_name_that_cannot_run_raises() -> None:
    with pytest.raises(SceneError) as caught:
        choose("test", TABLE, "best")
    assert str(caught.value) == (
        "test backend 'best' cannot run here\n"
        "  why: no accelerator\n"
        "  fix: install no_such_module:Thing"
    )


def test_an_unknown_name_raises() -> None:
    with pytest.raises(SceneError) as caught:
        choose("test", TABLE, "Best")
    assert caught.value.what == "unknown test backend 'Best'"
    assert caught.value.why == "known names are: auto, best, good, poor"


def test_auto_raises_when_nothing_runs() -> None:
    with pytest.raises(SceneError) as caught:
        choose("test", NONE)
    assert caught.value.what == "no test backend runs here"
    assert caught.value.why == "a: no a; b: no b"


def test_the_table_of_renderers() -> None:
    assert list(RENDERERS) == ["gsplat", "cpu", "reference"]
    assert RENDERERS["cpu"].missing() is None and RENDERERS["reference"].missing() is None
    assert all(entry.about for entry in RENDERERS.values())
    assert all(entry.fix for entry in RENDERERS.values() if entry.missing() is not None)


@pytest.mark.parametrize("name", ["auto", "cpu", "reference"])
def test_make_renderer_makes_renderers(name: str) -> None:
    assert isinstance(make_renderer(name), Renderer)


def test_make_renderer_refuses_unknown_names() -> None:
    with pytest.raises(SceneError, match="unknown renderer backend 'opengl'"):
        make_renderer("opengl")
