"""The command line: reads arguments, prints events, holds no algorithm."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from renderers.errors import SceneError
from scenegen.cli_journal import COMMANDS as JOURNAL
from scenegen.cli_memory import memory
from scenegen.config import CreateConfig, ImportConfig
from scenegen.export.options import ExportOptions

if TYPE_CHECKING:
    from renderers import Camera
    from scenegen.world import Event, World

EXIT_USER = 2
"""Exit code of everything that the user can fix."""
EXIT_STOPPED = 130
"""Exit code after Ctrl-C, as shells expect."""
FPS = 30
"""Frames a second of films."""

logger = logging.getLogger("scenegen")
Flat = tyro.conf.arg(name="")  # --quality, not --config.quality


def create(
    photo: tyro.conf.Positional[Path],
    out: Path,
    config: Annotated[CreateConfig, Flat] = CreateConfig(),  # noqa: B008  (frozen)
    json: bool = False,
) -> None:
    """Make a world from a photograph.

    Args:
        photo: The photograph: any image that Pillow reads.
        out: New or empty folder for the world.
        config: How the world is made.
        json: Print every event as one line of JSON.
    """
    from dataclasses import asdict

    from scenegen.world import create_events

    _report(create_events(photo, out, **asdict(config)), as_json=json)
    if not json:
        _say(f"walk through it:  scenegen view {out}")


def import_(
    file: tyro.conf.Positional[Path],
    world: tyro.conf.Positional[Path],
    config: Annotated[ImportConfig, Flat] = ImportConfig(),  # noqa: B008
    json: bool = False,
) -> None:
    """Make a world of a file of splats, which can be walked through and grown like any other.

    Args:
        file: .ply, .spz, .compressed.ply, .splat or .splats.glb, of this program or another.
        world: New or empty folder for the world.
        config: Where one stands in it, and how it grows.
        json: Print every event as one line of JSON.
    """
    from scenegen.world import import_events

    _report(import_events(file, world, config), as_json=json)
    if not json:
        _say(f"walk through it:  scenegen view {world}")


def view(
    source: tyro.conf.Positional[Path | None] = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    out: Path | None = None,
    config: Annotated[CreateConfig, Flat] = CreateConfig(),  # noqa: B008
) -> None:
    """Walk through a world in the browser. Given a photograph, make its world live.

    Args:
        source: Folder of a world, or a photograph; left out, the browser offers the worlds in the
            folder worlds, and takes photographs.
        host: Address to listen on. Anything but 127.0.0.1 lets others in, without a password.
        port: Port to listen on; the next free one when it is taken.
        out: For a photograph: folder for its world; worlds/NAME when left out.
        config: How the world of a photograph is made.
    """
    from dataclasses import asdict

    import scenegen
    import viewer

    if source is None:
        viewer.view_start("worlds", asdict(config), host=host, port=port)
        return
    if source.is_dir():
        viewer.view_world(scenegen.open(source, config.renderer), host=host, port=port)
        return
    folder = out or Path("worlds") / source.stem
    viewer.view_photo(source, folder, asdict(config), host=host, port=port)


def grow(
    world: tyro.conf.Positional[Path], path: str, distance: float = 1.0, json: bool = False
) -> None:
    """Walk a path through a world and fill what it uncovers.

    Args:
        world: Folder of the world.
        path: forward, left, right, up, around, or a transforms.json file.
        distance: Length of a named walk, in metres.
        json: Print every event as one line of JSON.
    """
    import scenegen

    _report(scenegen.open(world).grow(path, distance), as_json=json)


def render(
    world: tyro.conf.Positional[Path],
    out: Path,
    path: str | None = None,
    distance: float = 1.0,
    depth: bool = False,
    normals: bool = False,
    panorama: bool = False,
) -> None:
    """Draw a world: one picture, a film, a panorama, or a folder of frames to train from.

    Args:
        world: Folder of the world.
        out: FILE.png (the end of the path), FILE.mp4, or a folder for numbered frames with their
            cameras as transforms.json and as COLMAP text.
        path: forward, left, right, up, around, turntable, fly, a transforms.json file, or a folder
            of COLMAP text; the photograph's own camera when left out.
        distance: Length of a named walk, in metres.
        depth: Also write depth, as NPY (float32 metres; NaN unknown, +inf sky) and as PNG (16-bit
            millimetres; 0 unknown or sky).
        normals: Also write where surfaces face, as NPY and PNG: x right, y down, z ahead.
        panorama: All around the end of the path: 2560 x 1280, FILE.png or FILE.jpg.
    """
    import scenegen
    from scenegen.world import path_cameras

    if (depth or normals) and (panorama or out.suffix.lower() == ".mp4"):
        raise SceneError(
            f"{out.name} has no place for depth and normals",
            why="they are written beside pictures, not beside films and panoramas",
            fix="give a folder or FILE.png, or leave out --depth and --normals",
        )
    opened = scenegen.open(world)
    cameras = [opened.camera0]
    if path is not None:
        cameras = path_cameras(opened.camera0, path, distance, film=True)
    if panorama:
        _draw_panorama(opened, cameras[-1], out)
    else:
        _draw(opened, cameras, out, depth, normals)


def export(
    world: tyro.conf.Positional[Path],
    file: tyro.conf.Positional[Path],
    format: str | None = None,
    options: Annotated[ExportOptions, Flat] = ExportOptions(),  # noqa: B008
) -> None:
    """Write a world for other programs: splats, a mesh or a collider, by the suffix.

    Splats: .ply .spz .compressed.ply .splat .splats.glb .html; meshes: .glb .obj .mesh.ply; for
    physics: .collider.glb.

    Args:
        world: Folder of the world.
        file: File to write; its suffix chooses the format.
        format: Format by name, when the suffix does not say.
        options: What of the world is written, and where it lies in the file.
    """
    import scenegen

    written = scenegen.open(world).export(file, format, options)
    _say(f"{written}: {written.stat().st_size / 1e6:.1f} MB")


def report(
    world: tyro.conf.Positional[Path],
    html: Path | None = None,
    walks: bool = True,
    json: bool = False,
) -> None:
    """Measure a world: what one gets back on return, holes, seams, drift, cost.

    Args:
        world: Folder of the world; it is only read.
        html: Also write one page with the numbers and pictures to this file.
        walks: Also walk in a copy that grows on the way: 90 degrees round and back, 1 m out and
            back. Takes minutes; --no-walks leaves it out.
        json: Print one JSON object instead of text.
    """
    import scenegen
    from scenegen.world import measure, pictures, write_page

    opened = scenegen.open(world)
    found = []
    for one in measure(opened, walks):
        found.append(one)
        if not json:
            _say(str(one))
    if html is not None:
        write_page(html, opened, found, pictures(opened))
    if json:
        _say(_dumps({"measures": [{**vars(one), "reached": one.reached} for one in found]}))


def models(
    action: tyro.conf.Positional[Literal["list", "pull"]] = "list",
    names: tyro.conf.Positional[tuple[str, ...]] = (),
) -> None:
    """List the models that can be pulled, or pull some.

    Args:
        action: list or pull.
        names: For pull: which models; OWNER/NAME is any model of the Hugging Face hub.
    """
    from scenegen import models as store

    if action == "pull":
        if not names:
            raise SceneError(
                "no model to pull was named",
                why="`models pull` takes one or more names",
                fix=f"choose from: {', '.join([*store.MODELS, *store.HUB_MODELS])}",
            )
        for name in names:
            _say(f"{name}: {store.pull(name, progress=_say)}")
        return
    for model in store.MODELS.values():
        state = "here" if store.is_present(model.name) else "not here"
        _say(f"{model.name:20} {model.role:9} {model.size / 1e6:6.1f} MB  {state:9}"
             f" {model.licence}: {model.quality}")  # fmt: skip
    for model in store.HUB_MODELS.values():
        state = "not here" if store.hub_missing(model.name) else "here"
        only = "" if model.commercial else " (not for commercial use)"
        _say(f"{model.name:20} {model.role:9} {model.size / 1e6:6.1f} MB  {state:9}"
             f" {model.licence}{only}: {model.quality}")  # fmt: skip
    _say(f"folder: {store.installed_folder()}; of the hub: {store.hub_cache()}")


def doctor(json: bool = False) -> None:
    """Say what runs on this machine, what does not, why, and the fix.

    Args:
        json: Print one JSON object instead of text.
    """
    from scenegen.doctor import examine, report_lines

    findings = examine()
    for line in [_dumps(findings)] if json else report_lines(findings):
        _say(line)


COMMANDS = {
    "create": create,
    "import": import_,
    "view": view,
    "grow": grow,
    "render": render,
    "export": export,
    **JOURNAL,
    "memory": memory,
    "report": report,
    "models": models,
    "doctor": doctor,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 2 the user can fix it, 130 stopped."""
    from scenegen.doctor import check_own_packages

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("scenegen").setLevel(logging.INFO)
    logging.getLogger().setLevel(logging.WARNING)
    try:
        check_own_packages()
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="scenegen", description=__doc_help__, args=argv
        )
    except SceneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USER
    except KeyboardInterrupt:
        print("stopped; what was committed stays", file=sys.stderr)  # noqa: T201
        return EXIT_STOPPED
    except BrokenPipeError:  # who read along, `head` for example, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


__doc_help__ = "One photograph becomes a 3D world you can walk through."


def _report(events: Iterable[Event], *, as_json: bool) -> None:
    """Print a stream of events: a bar on a terminal, otherwise one line each."""
    from tqdm import tqdm

    from scenegen.world import Committed, Planned, Skipped

    bar = None
    for event in events:
        if as_json:
            _say(_dumps({"event": type(event).__name__, **_plain(event)}))
        elif not sys.stderr.isatty():
            _say(str(event))
        elif isinstance(event, Planned):
            bar = tqdm(total=len(event.cameras), unit="view", desc="growing")
        elif isinstance(event, (Committed, Skipped)) and bar is not None:
            bar.set_postfix_str(str(event), refresh=False)
            bar.update()
        else:
            tqdm.write(str(event))
    if bar is not None:
        bar.close()


def _plain(event: Event) -> dict[str, object]:
    """The fields of an event that JSON can hold; tensors by their size."""
    from renderers import Camera, Splats

    result: dict[str, object] = {}
    for name, value in vars(event).items():
        if isinstance(value, Splats):
            result[name] = len(value)
        elif isinstance(value, Camera):
            result[name] = value.cam_from_world.tolist()
        elif name == "cameras":
            result[name] = len(value)
        else:
            result[name] = value
    return result


def _draw(world: World, cameras: list, out: Path, depth: bool, normals: bool) -> None:
    """Render cameras to a picture, a film or a folder, by the suffix of ``out``."""
    from scenegen.export.dataset import write_dataset, write_frame
    from scenegen.export.video import write_mp4
    from scenegen.world.frames import frames

    started = time.monotonic()
    suffix = out.suffix.lower()
    if suffix == ".mp4":
        write_mp4(out, (frame.rgb for frame in frames(world.render, cameras)), FPS)
    elif suffix == ".png":
        cameras = cameras[-1:]
        write_frame(out, next(frames(world.render, cameras, depth, normals)))
    elif suffix == "":
        write_dataset(out, frames(world.render, cameras, depth, normals), world.splats)
    else:
        raise SceneError(
            f"cannot draw to {out.name}",
            why=f"{suffix} is neither a picture nor a film",
            fix="give a name that ends in .png or .mp4, or a folder",
        )
    _say(f"{out}: {len(cameras)} frames, {time.monotonic() - started:.1f} s")


def _draw_panorama(world: World, camera: Camera, out: Path) -> None:
    from scenegen.export.panorama import panorama, write_panorama

    started = time.monotonic()
    write_panorama(out, panorama(lambda view: world.render(view).rgb, camera))
    _say(f"{out}: a panorama, {time.monotonic() - started:.1f} s")


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, default=str)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
