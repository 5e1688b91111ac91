"""The command line of training: reads arguments, prints progress, holds no algorithm."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import tyro

from renderers.errors import SceneError
from scenegen.training.completion_recipe import CompletionRecipe, CompletionStep
from scenegen.training.outpaint_recipe import OutpaintRecipe, OutpaintStep
from scenegen.training.recipe import DepthRecipe, Step

EXIT_USER = 2
"""Exit code of everything that the user can fix."""
EXIT_STOPPED = 130
"""Exit code after Ctrl-C, as shells expect."""


def depth(
    recipe: Annotated[DepthRecipe, tyro.conf.arg(name="")] = DepthRecipe(),  # noqa: B008  (frozen)
    out: Path = Path("trained/depth"),
    step: Step = "all",
    minutes: float = 100.0,
    resume: bool = False,
) -> None:
    """Train the depth network: draw frames, cache tokens, fit, train, measure, export.

    Args:
        recipe: How it is trained.
        out: Folder for all that is made; new, or with --resume that of a training.
        step: One step of the recipe, or all.
        minutes: Stop after about so many minutes; --resume goes on later.
        resume: Go on with the training in that folder.
    """
    from scenegen.training.running import train_depth

    for progress in train_depth(recipe, out, step, minutes, resume):
        print(progress, flush=True)  # noqa: T201


def outpaint(
    recipe: Annotated[OutpaintRecipe, tyro.conf.arg(name="")] = OutpaintRecipe(),  # noqa: B008
    out: Path = Path("trained/outpaint"),
    step: OutpaintStep = "all",
    minutes: float = 100.0,
    resume: bool = False,
) -> None:
    """Train the outpainting network: draw samples, fit, measure, export.

    Args:
        recipe: How it is trained.
        out: Folder for all that is made; new, or with --resume that of a training.
        step: One step of the recipe, or all.
        minutes: Stop after about so many minutes; --resume goes on later.
        resume: Go on with the training in that folder.
    """
    from scenegen.training.outpaint_running import train_outpaint

    for progress in train_outpaint(recipe, out, step, minutes, resume):
        print(progress, flush=True)  # noqa: T201


def completion(
    recipe: Annotated[CompletionRecipe, tyro.conf.arg(name="")] = CompletionRecipe(),  # noqa: B008
    out: Path = Path("trained/completion"),
    step: CompletionStep = "all",
    minutes: float = 100.0,
    resume: bool = False,
) -> None:
    """Train depth completion: draw frames, hide parts of them, fit, measure, export.

    Args:
        recipe: How it is trained.
        out: Folder for all that is made; new, or with --resume that of a training.
        step: One step of the recipe, or all.
        minutes: Stop after about so many minutes; --resume goes on later.
        resume: Go on with the training in that folder.
    """
    from scenegen.training.completion_running import train_completion

    for progress in train_completion(recipe, out, step, minutes, resume):
        print(progress, flush=True)  # noqa: T201


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 2 the user can fix it, 130 stopped."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"depth": depth, "outpaint": outpaint, "completion": completion},
            prog="python -m scenegen.training",
            args=argv,
        )
    except SceneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USER
    except KeyboardInterrupt:
        print("stopped; what was finished stays: go on with --resume", file=sys.stderr)  # noqa: T201
        return EXIT_STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
