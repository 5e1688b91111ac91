"""What a world remembers, as a table: views, what each has seen, and what was changed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatial_memory import sightings

if TYPE_CHECKING:
    from scenegen.world.journal import Edit
    from scenegen.world.world import World

MEGABYTE = 1e6
PIXEL = 4 * 3 + 4 + 1
"""Bytes of a pixel: colour, depth, mask."""


def memory_json(world: World) -> dict[str, Any]:
    """Views, totals and edits as plain values.

    ``megabytes`` counts the pixels of the views (colour, depth, mask) and the surfels.
    """
    memory, seen = world.memory, sightings(world.memory)
    steps = {step.id: step for step in world.steps}
    views, size = [], sum(column.nbytes for column in memory.surfels.arrays().values())
    for view_id in memory.views:
        camera = steps[view_id].camera  # and not the view itself: its pixels need not be read
        size += PIXEL * camera.width * camera.height
        views.append(
            {
                "id": view_id,
                "provenance": memory.views.provenance(view_id),
                "step": steps[view_id].id,
                "width": camera.width,
                "height": camera.height,
                "position": camera.center.tolist(),
                "surfels": seen[view_id].surfels,
                "alone": seen[view_id].alone,
                "pinned": view_id in memory.pinned,
            }
        )
    totals = {"views": len(views), "surfels": len(memory.surfels), "megabytes": size / MEGABYTE}
    return {"views": views, "totals": totals, "edits": [vars(edit) for edit in world.edits]}


def memory_lines(world: World) -> list[str]:
    """The same as a table for people."""
    content = memory_json(world)
    lines = ["view  step  provenance         size            position in m    surfels    only it"]
    for view in content["views"]:
        size = f"{view['width']} x {view['height']}"
        place = "  ".join(f"{round(value, 2) + 0.0:6.2f}" for value in view["position"])
        lines.append(
            f"{view['id']:4}  {view['step']:4}  {view['provenance']:10}  {size:>11}  {place}  "
            f"{view['surfels']:9,}  {view['alone']:9,}{'  pinned' if view['pinned'] else ''}"
        )
    totals = content["totals"]
    lines.append(
        f"{totals['views']} views, {totals['surfels']:,} surfels, {totals['megabytes']:.1f} MB"
    )
    return lines + [_edit_line(edit) for edit in world.edits]


def _edit_line(edit: Edit) -> str:
    what = edit.arguments.get("box", edit.arguments.get("view"))
    return f"entry {edit.id}: {edit.kind} {what} ({edit.made_at})"
