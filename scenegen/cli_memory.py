"""`scenegen memory`: what a world remembers, why, and how to change it. Holds no algorithm."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro

from renderers.errors import SceneError

if TYPE_CHECKING:
    from renderers import Camera
    from scenegen.world import Recall, World

WorldFolder = tyro.conf.Positional[Path]
ViewId = tyro.conf.Positional[int]


def list_views(world: WorldFolder, json: bool = False) -> None:
    """List the views that a world remembers, and what was changed by hand.

    Args:
        world: Folder of the world.
        json: Print one JSON object instead of text.
    """
    import scenegen
    from scenegen.world import memory_json, memory_lines

    opened = scenegen.open(world)
    for line in [jsons.dumps(memory_json(opened))] if json else memory_lines(opened):
        _say(line)


def show(
    world: WorldFolder,
    out: Path | None = None,
    camera: Path | None = None,
    view: int | None = None,
    step: int | None = None,
    forward: float = 0.0,
    right: float = 0.0,
    down: float = 0.0,
    yaw: float = 0.0,
    pitch: float = 0.0,
    json: bool = False,
) -> None:
    """Say and draw which past views explain a view, and why.

    The view is that of a camera file, of a remembered view, of a step (as it was chosen then), or
    the photograph's own camera after a move.

    Args:
        world: Folder of the world.
        out: FILE.png for the picture; text only when left out.
        camera: A transforms.json; its first camera is used.
        view: Number of a remembered view, to look from where it was taken.
        step: Number of a step: what was chosen for it, with the world as it was then.
        forward: Step forwards from the photograph's camera, in metres.
        right: Step to the right, in metres.
        down: Step downwards, in metres.
        yaw: Turn to the right, in degrees.
        pitch: Turn upwards, in degrees.
        json: Print one JSON object instead of text.
    """
    import scenegen

    move = {"forward": forward, "right": right, "down": down}
    move |= {"yaw_degrees": yaw, "pitch_degrees": pitch}
    ways = {
        "--camera": camera,
        "--view": view,
        "--step": step,
        "a move": any(move.values()) or None,
    }
    named = [name for name, value in ways.items() if value is not None]
    if len(named) > 1:
        raise SceneError(
            f"which view is meant: {' or '.join(named)}?",
            why="one view is explained at a time",
            fix="give one of --camera, --view, --step, or a move such as --right 0.3 --yaw 20",
        )
    if out is not None and out.suffix.lower() != ".png":
        raise SceneError(
            f"cannot draw to {out.name}",
            why="what the memory says is drawn as one picture",
            fix="give a name that ends in .png",
        )
    opened = scenegen.open(world)
    if step is not None:
        recall = opened.recall_step(step)
    else:
        recall = opened.recall(_camera(opened, camera, view, move))
    _tell(recall, out, json)


def pin(world: WorldFolder, view: ViewId) -> None:
    """Have a view taken first whenever the memory is asked, and never forgotten.

    Args:
        world: Folder of the world.
        view: Number of the view.
    """
    import scenegen

    scenegen.open(world).pin(view)
    _say(f"view {view} is pinned")


def unpin(world: WorldFolder, view: ViewId) -> None:
    """Take the pin out of a view.

    Args:
        world: Folder of the world.
        view: Number of the view.
    """
    import scenegen

    scenegen.open(world).pin(view, pinned=False)
    _say(f"view {view} is not pinned")


def forget(world: WorldFolder, view: ViewId) -> None:
    """Drop a view from the memory. The splats that were grown for it stay.

    Args:
        world: Folder of the world.
        view: Number of the view; the photograph cannot be forgotten.
    """
    import scenegen

    opened = scenegen.open(world)
    opened.forget(view)
    _say(f"view {view} is forgotten; {len(opened.memory.views)} views are left")


def erase(
    world: WorldFolder,
    box: tuple[float, float, float, float, float, float],
    regenerate: bool = False,
    json: bool = False,
) -> None:
    """Take a place out of a world and of its memory, so that it can be grown anew.

    Args:
        world: Folder of the world.
        box: X0 Y0 Z0 X1 Y1 Z1, smallest and largest corner: x right, y down, z forward, in metres
            from where the photograph was taken.
        regenerate: Grow it anew at once, from the views that showed most of it; one undo takes
            back both.
        json: Print one JSON object instead of text.
    """
    import scenegen
    from scenegen.world import Committed

    opened, corners, grown = scenegen.open(world), [box[:3], box[3:]], []
    events = opened.regenerate(corners) if regenerate else iter([opened.erase(corners)])
    erased: Any = next(events)
    if not json:
        _say(f"erased {erased.splats:,} splats and {erased.surfels:,} surfels")
    for event in events:
        if isinstance(event, Committed):
            grown.append(event.step)
        if not json:
            _say(str(event))
    if json:
        _say(jsons.dumps(vars(erased) | ({"grown": grown} if regenerate else {})))


COMMANDS = {
    "list": list_views,
    "show": show,
    "pin": pin,
    "unpin": unpin,
    "forget": forget,
    "erase": erase,
}

if TYPE_CHECKING:
    Action = Any
else:
    Action = Union[  # noqa: UP007  (made from a table)
        tuple(
            Annotated[Any, tyro.conf.subcommand(name, constructor=command)]
            for name, command in COMMANDS.items()
        )
    ]


def memory(action: Annotated[Action, tyro.conf.arg(name="")]) -> None:
    """What a world remembers: list it, ask it why, change it."""


def _camera(world: World, file: Path | None, view: int | None, move: dict[str, float]) -> Camera:
    if file is not None:
        from scenegen.export.transforms import read_transforms

        return read_transforms(file)[0]
    if view is not None:
        return world.memory.views[view].camera
    return world.camera0.moved(**move)


def _tell(recall: Recall, out: Path | None, as_json: bool) -> None:
    """Draw first: an error leaves nothing said."""
    from scenegen.export.images import write_png
    from scenegen.world import draw_recall

    if out is not None:
        write_png(out, draw_recall(recall))
    for line in [jsons.dumps(recall.as_json())] if as_json else recall.lines():
        _say(line)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
