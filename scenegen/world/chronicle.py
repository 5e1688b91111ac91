"""The journal for people and for programs: a tree, newest entries first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scenegen.world.journal import Edit, Entry, Journal, Step
from scenegen.world.store import Store


def read_journal(folder: str | Path) -> Journal:
    """The journal of a world, whatever state its steps are in.

    Raises:
        SceneError: It is not a world, or the journal cannot be read.
    """
    store = Store.open(Path(folder))
    try:
        return store.journal()
    finally:
        store.close()


def log_lines(journal: Journal) -> list[str]:
    """One line per entry; what does not lead to the head is drawn beside what does.

    ``@`` is where the world is, ``*`` what it consists of, and ``o`` what belongs to other
    branches or was undone.
    """
    here = {entry.id for entry in journal.way(journal.head)}
    names: dict[int, list[str]] = {}
    for name, entry in journal.branches.items():
        names.setdefault(entry, []).append(name)
    lines: list[str] = []
    rails: list[int | None] = []  # per column: the entry that the line there comes down to
    for number in _newest_first(journal):
        entry = journal.entries[number]
        arriving = [column for column, want in enumerate(rails) if want == number]
        if not arriving:
            rails.append(number)
            arriving = [len(rails) - 1]
        mine = arriving[0]
        mark = "@" if number == journal.head else "*" if number in here else "o"
        drawn = [mark if c == mine else "|" for c in range(len(rails)) if c not in arriving[1:]]
        if len(arriving) > 1:
            joint = "|/" + "".join(" /" for _ in arriving[2:])
            lines.append(" ".join("|" for _ in rails[:mine]) + (" " if mine else "") + joint)
        rails = [want for column, want in enumerate(rails) if column not in arriving[1:]]
        rails[mine] = entry.parent
        if entry.parent is None:
            rails.pop(mine)
        tags = [*sorted(names.get(number, [])), *(["head"] if number == journal.head else [])]
        label = f" ({', '.join(tags)})" if tags else ""
        lines.append(f"{' '.join(drawn)} {number}{label}: {describe(entry)}")
    lines += [f"! {number}: damaged: {why}" for number, why in sorted(journal.broken.items())]
    return lines


def log_json(journal: Journal) -> dict[str, Any]:
    """The same as plain values."""
    here = {entry.id for entry in journal.way(journal.head)}
    entries = []
    for number in sorted(journal.entries):
        entry = journal.entries[number]
        plain = {"id": number, "parent": entry.parent, "made_at": entry.made_at}
        plain |= {"current": number in here, "seal": journal.seals[number]}
        if isinstance(entry, Step):
            pose = entry.camera.cam_from_world.tolist()
            plain |= {"kind": "step", "provenance": entry.provenance, "cam_from_world": pose}
            plain |= {"info": dict(entry.info), "files": dict(entry.files)}
        else:
            plain |= {"kind": entry.kind, "arguments": dict(entry.arguments)}
        entries.append(plain)
    state = {"head": journal.head, "branch": journal.branch, "branches": dict(journal.branches)}
    broken = {str(number): why for number, why in journal.broken.items()}
    return state | {"entries": entries, "broken": broken}


def describe(entry: Entry) -> str:
    """What an entry did, in words."""
    when = f", {entry.made_at[:16].replace('T', ' ')}" if entry.made_at else ""
    if isinstance(entry, Edit):
        what = entry.arguments.get("box", entry.arguments.get("view"))
        return f"{entry.kind} {what}{when}"
    info = entry.info
    by = " and ".join(str(info[key]) for key in ("outpaint", "depth") if key in info)
    words = [f"{entry.provenance}{f' by {by}' if by else ''}"]
    if "hole_share" in info:
        words.append(f"{info['hole_share']:.0%} of the view was unknown")
    if "invented" in info:
        words.append(f"{info['invented']:.0%} was invented")
    if retrieved := info.get("retrieved", {}).get("view_ids"):
        words.append(f"saw views {', '.join(map(str, retrieved))}")
    if "splats" in info:
        words.append(f"{info['splats']:,} splats")
    if "seconds" in info:
        words.append(f"{info['seconds']:.1f} s")
    return f"step, {', '.join(words)}{when}"


def _newest_first(journal: Journal) -> list[int]:
    """All entries, children before their parents; of what is free, the newest."""
    waiting = {number: len(journal.children(number)) for number in journal.entries}
    free = [number for number, count in waiting.items() if count == 0]
    order: list[int] = []
    while free:
        free.sort()
        order.append(free.pop())
        parent = journal.entries[order[-1]].parent
        if parent is not None and parent in waiting:
            waiting[parent] -= 1
            if waiting[parent] == 0:
                free.append(parent)
    return order
