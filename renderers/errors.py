"""The error for input, files and machines, and the shape check behind every dataclass."""

from __future__ import annotations

from typing import Any


class SceneError(Exception):
    """Base of every error caused by input, files or the machine (not by a bug).

    The message has three lines: what failed, why, and what the user can do about it.
    """

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(f"{what}\n  why: {why}\n  fix: {fix}")
        self.what = what
        self.why = why
        self.fix = fix


def check_shapes(owner: object, **shapes: tuple[int | str, ...]) -> None:
    """Check array fields against shapes; a name stands for one size that must agree everywhere.

    Args:
        owner: Object whose attributes are checked.
        shapes: Field name to shape, for example ``means=("n", 3)``.

    Raises:
        SceneError: A field has another shape.
    """
    sizes: dict[str, int] = {}
    for field, wanted in shapes.items():
        value: Any = getattr(owner, field)
        got = tuple(value.shape)
        fits = len(got) == len(wanted)
        for size, want in zip(got, wanted, strict=False):
            if isinstance(want, str):
                fits &= sizes.setdefault(want, size) == size
            else:
                fits &= size == want
        if not fits:
            known = ", ".join(f"{name} = {size}" for name, size in sizes.items())
            known = f" with {known}" if known else ""
            raise SceneError(
                f"{type(owner).__name__}.{field} has shape {got}",
                why=f"it must be ({', '.join(map(str, wanted))}){known}",
                fix=f"pass {field} with the shape above",
            )
