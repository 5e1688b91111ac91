"""How good worlds are, and what they cost: every shipped photograph, and pictures with poses.

Run: python -m benchmarks.world photographs [--extent look] [--walks] [--sheets FOLDER]
     python -m benchmarks.world drawn --out FOLDER
     python -m benchmarks.world views --dataset FOLDER/transforms.json

photographs  makes a world of each in a process of its own, measures it as `scenegen report` does,
             and prints the median and the worst over all; with a sheet of views for the eye.
drawn        draws a posed sequence, where no real one is at hand.
views        makes a world of the first picture of a posed sequence and compares it with the others.
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from torch import Tensor

from benchmarks.world_drawn import drawn
from benchmarks.world_views import views
from scenegen.config import Extent, Quality
from scenegen.world import Committed, Measure, create_events, measure, pictures

PHOTOS = Path(__file__).parents[1] / "assets" / "photos"
SECONDS = {"photo": 20.0, "look": 90.0, "around": 240.0}
"""A world may take so long."""
MEMORY = 4.0
"""GB that may be in use."""
SHEET_COLUMNS, SHEET_WIDTH = 3, 512
"""Views of a sheet side by side, and the width of each in pixels."""


@dataclass(frozen=True)
class Settings:
    """How worlds are made, and how closely they are looked at."""

    extent: Extent = "look"
    quality: Quality = "standard"
    depth: str = "auto"
    outpaint: str = "auto"
    walks: bool = False
    """Also walk in copies of the worlds."""


def photographs(
    settings: tyro.conf.OmitArgPrefixes[Settings] = Settings(),
    photos: tuple[Path, ...] = (),
    sheets: Path | None = None,
    out: Path | None = None,
) -> int:
    """Make a world of each photograph, and measure it.

    Args:
        settings: As for `scenegen create`.
        photos: Files; all shipped photographs when left out.
        sheets: Folder for a sheet of views per photograph.
        out: JSON file for all numbers.

    Returns:
        How many targets are missed by the worst photograph.
    """
    if sheets:
        sheets.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Measure]] = {}
    for photo in photos or sorted(PHOTOS.glob("*.jpg")):
        found[photo.stem] = _in_a_process(photo, settings, sheets)
        print(f"\n{photo.stem}", *found[photo.stem].values(), sep="\n  ", flush=True)
    if out:
        numbers = {p: {n: m.value for n, m in own.items()} for p, own in found.items()}
        content = {"settings": asdict(settings), "measures": numbers}
        out.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{len(found)} photographs, {settings}: median, worst")
    return sum(_summed_up(found))


def _summed_up(found: dict[str, dict[str, Measure]]) -> list[bool]:
    """Print each measure over all photographs. Says which targets the worst of them misses."""
    columns: defaultdict[str, list[tuple[float, str, Measure]]] = defaultdict(list)
    for photo, own in found.items():
        for name, one in own.items():
            columns[name].append((one.value, photo, one))
    missed = []
    for name, column in columns.items():
        up = column[0][2].higher_is_better
        value, photo, worst = (min if up else max)(column, key=lambda row: row[0])
        middle = statistics.median(row[0] for row in column)
        target = "" if worst.target is None else f"({'>=' if up else '<='} {worst.target:g})"
        miss = "MISSED" if worst.reached is False else ""
        print(f"{name:24}{middle:12.4g}{value:12.4g} {worst.unit:3}{target:12}{miss:7} {photo}")
        missed.append(bool(miss))
    return missed


def _in_a_process(photo: Path, settings: Settings, sheets: Path | None) -> dict[str, Measure]:
    """One photograph, with memory of its own."""
    command = [sys.executable, "-m", "benchmarks.world", "one", "--photo", str(photo)]
    for name, value in asdict(settings).items():
        command += ([f"--{name}"] if value else []) if name == "walks" else [f"--{name}", value]
    command += ["--sheet", str(sheets / f"{photo.stem}.jpg")] if sheets else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    return {row["name"]: Measure(**row) for row in rows}


def one(
    photo: Path,
    settings: tyro.conf.OmitArgPrefixes[Settings] = Settings(),
    sheet: Path | None = None,
) -> int:
    """Make and measure one world. The last line printed holds its measures as JSON."""
    import scenegen

    with tempfile.TemporaryDirectory() as scratch:
        folder, started = Path(scratch) / "world", time.monotonic()
        first = math.nan
        wanted = asdict(settings)
        wanted.pop("walks")
        for event in create_events(photo, folder, **wanted):
            if isinstance(event, Committed) and math.isnan(first):
                first = time.monotonic() - started
        seconds = time.monotonic() - started
        budget, about = (
            SECONDS[settings.extent],
            f"in all, of which {first:.1f} s to the first step",
        )
        rows = [
            Measure("create", seconds, "s", budget, False, about),
            Measure("memory", _memory(), "GB", MEMORY, False, "most in use while it was made"),
        ]
        world = scenegen.open(folder)
        try:
            rows += [row for row in measure(world, settings.walks) if row.name != "time"]
            if sheet:
                _sheet([picture.rgb for picture in pictures(world)]).save(sheet, quality=92)
        finally:
            world.close()
    print(json.dumps([asdict(row) for row in rows]))
    return 0


def _memory() -> float:
    """Most memory that this process has used, GB."""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _sheet(views: list[Tensor]) -> Image.Image:
    """Views side by side."""
    height, width = views[0].shape[:2]
    size = (SHEET_WIDTH, round(SHEET_WIDTH * height / width))
    rows = math.ceil(len(views) / SHEET_COLUMNS)
    page = Image.new("RGB", (SHEET_COLUMNS * size[0], rows * size[1]))
    for number, rgb in enumerate(views):
        levels = (rgb.cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        row, column = divmod(number, SHEET_COLUMNS)
        small = Image.fromarray(levels).resize(size, Image.Resampling.LANCZOS)
        page.paste(small, (column * size[0], row * size[1]))
    return page


if __name__ == "__main__":
    modes = {"photographs": photographs, "views": views, "drawn": drawn, "one": one}
    missed = tyro.extras.subcommand_cli_from_dict(modes, description=__doc__)
    sys.exit(1 if missed else 0)
