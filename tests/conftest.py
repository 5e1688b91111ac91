"""Checks every shape annotation while tests run, and keeps property tests deterministic."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(["renderers", "spatial_memory", "scenegen", "viewer"], "typecheck.check")
importlib.import_module("renderers")  # before torch: it says how threads wait
settings.register_profile("scenegen", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("scenegen")


@pytest.fixture(scope="session")
def open3d() -> None:
    """Skips what makes meshes where Open3D does not load."""
    from renderers import SceneError
    from scenegen.export import fusion

    try:
        fusion.open3d()
    except SceneError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def grown_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small world with two grown steps. Copy it before you change it."""
    from test_world import SETTINGS, write_photo

    import scenegen

    folder = tmp_path_factory.mktemp("worlds") / "house"
    photo = write_photo(folder.parent / "house.png", 128, 96)
    world = scenegen.create(photo, folder, extent="photo", **SETTINGS)
    list(world.grow([world.camera0.moved(right=0.3), world.camera0.moved(yaw_degrees=15)]))
    world.close()
    return folder
