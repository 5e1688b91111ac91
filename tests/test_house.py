"""The house: imports point down, importing is cheap, lazy names stay what they are."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS: tuple[
    tuple[str, ...], ...
] = (  # lowest first; a part imports only from floors below its own
    ("renderers",),
    ("spatial_memory",),
    ("scenegen.config", "scenegen.fields", "scenegen.image", "scenegen.stopping"),
    ("scenegen.models",),
    ("scenegen.geometry", "scenegen.splatting", "scenegen.outpaint", "scenegen.export"),
    ("scenegen.world",),
    ("scenegen.training",),
    ("viewer",),
    ("scenegen.doctor",),
    ("scenegen.cli_journal", "scenegen.cli_memory"),
    ("scenegen.cli",),
    ("scenegen.__main__",),
)
"""scenegen itself holds only lazy names and the version, and may be imported by all."""


def part_of(module: str) -> tuple[int, str] | None:
    """Floor and name of the part that a dotted module name belongs to."""
    for floor, parts in enumerate(FLOORS):
        for part in parts:
            if module == part or module.startswith(part + "."):
                return floor, part
    return None


def imported_modules(source: str) -> set[str]:
    """Dotted names of all that a source file imports, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(files: dict[str, str]) -> list[str]:
    """Imports that point up or sideways, given module names and their sources."""
    found = []
    for module, source in files.items():
        home = part_of(module)
        if home is None:
            continue
        for name in imported_modules(source):
            target = part_of(name)
            if target and target[1] != home[1] and target[0] >= home[0]:
                found.append(f"{module} imports {name}")
    return sorted(found)


def our_files() -> dict[str, str]:
    files = {}
    for top in ("renderers", "spatial_memory", "scenegen", "viewer"):
        for path in (ROOT / top).rglob("*.py"):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            files[dotted.removesuffix(".__init__")] = path.read_text()
    return files


def test_imports_point_down() -> None:
    files = our_files()
    assert len(files) > 30
    assert violations(files) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("renderers.camera", "from spatial_memory import ViewMemory"),
        ("scenegen.geometry.sky", "import scenegen.outpaint.base"),  # sideways
        ("scenegen.models.store", "def f():\n    from scenegen import world"),  # inside a function
        ("scenegen.world.grow", "from viewer import serve"),
    ],
)
def test_an_import_turned_round_is_found(module: str, line: str) -> None:
    files = our_files()
    files[module] += f"\n{line}\n"
    assert len(violations(files)) == 1


def test_every_file_belongs_to_a_floor() -> None:
    homeless = [name for name in our_files() if part_of(name) is None and name != "scenegen"]
    assert homeless == []


def test_importing_scenegen_loads_nothing_heavy() -> None:
    code = (
        "import sys, scenegen, viewer, renderers, spatial_memory, scenegen.geometry, scenegen.cli;"
        "heavy = {'torch', 'numba', 'numpy', 'viser', 'open3d', 'kornia', 'onnxruntime'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
    assert result.stderr == ""


@pytest.mark.parametrize(
    "package",
    [
        "renderers",
        "spatial_memory",
        "viewer",
        "scenegen",
        "scenegen.geometry",
        "scenegen.splatting",
        "scenegen.outpaint",
        "scenegen.models",
        "scenegen.export",
        "scenegen.world",
        "scenegen.training",
    ],
)
def test_lazy_names_are_what_they_say_twice(package: str) -> None:
    """A submodule named like a function would take its place after the first use."""
    module = importlib.import_module(package)
    for name in module.__all__:
        first, second = getattr(module, name), getattr(module, name)
        assert first is second
        assert not isinstance(second, type(sys)), f"{package}.{name} is a module"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("package", ["renderers", "spatial_memory", "scenegen", "viewer"])
def test_threads_are_told_to_sleep_before_torch_starts_them(package: str) -> None:
    code = (
        f"import os, sys, {package};"
        "print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    )
    for given, want in ((None, "passive"), ("active", "active")):
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        if given is not None:
            environment["OMP_WAIT_POLICY"] = given
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert done.stdout.split() == [want, "False"]
