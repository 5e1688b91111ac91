"""Training states on disk: weights, their running average and AdamW's moments, without pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from renderers import SceneError
from scenegen.training.completion_recipe import CompletionRecipe
from scenegen.training.outpaint_recipe import OutpaintRecipe
from scenegen.training.recipe import DepthRecipe, Device


@dataclass(eq=False)
class TrainingState:
    """What a stage needs in order to go on exactly where it stopped."""

    parameters: dict[str, nn.Parameter]
    """What is trained, by name; belongs to the network."""
    average: dict[str, Tensor]
    """Exponential moving average of the parameters: what is evaluated and exported."""
    optimizer: torch.optim.AdamW
    step: int = 0

    @staticmethod
    def begin(parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW) -> TrainingState:
        """The state before the first step."""
        average = {name: value.detach().clone() for name, value in parameters.items()}
        return TrainingState(parameters, average, optimizer)

    def save(self, path: Path, stage: str, total: int) -> None:
        """Write the state whole or not at all."""
        arrays: dict[str, Tensor] = {}
        for name, value in self.parameters.items():
            arrays[f"weight.{name}"] = value.detach().contiguous()
            arrays[f"average.{name}"] = self.average[name].contiguous()
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in self.optimizer.state[value]:
                    arrays[f"{moment}.{name}"] = self.optimizer.state[value][moment].contiguous()
        about = {"step": str(self.step), "total": str(total), "stage": stage}
        part = path.with_suffix(".part")
        save_file(arrays, part, {"state": json.dumps(about)})
        part.replace(path)

    def restore(self, path: Path, stage: str) -> None:
        """Take over a saved state.

        Raises:
            SceneError: The file is damaged or of another training.
        """
        arrays, about = _read(path)
        if about.get("stage") != stage:
            raise _damaged(path, f"it is of the stage {about.get('stage')}, not of {stage}")
        self.step = int(about["step"])
        with torch.no_grad():
            for name, value in self.parameters.items():
                try:
                    value.copy_(arrays[f"weight.{name}"])
                    self.average[name].copy_(arrays[f"average.{name}"])
                    if f"exp_avg.{name}" in arrays:
                        moments = {
                            moment: arrays[f"{moment}.{name}"].to(value.device).clone()
                            for moment in ("exp_avg", "exp_avg_sq")
                        }
                        step = torch.tensor(float(self.step))
                        self.optimizer.state[value] = {"step": step, **moments}
                except (KeyError, RuntimeError) as error:
                    raise _damaged(path, f"{name}: {error}") from error


def claim_folder(
    folder: Path, recipe: DepthRecipe | OutpaintRecipe | CompletionRecipe, resume: bool
) -> None:
    """Make a folder that of a recipe.

    Args:
        folder: New, empty, or with ``resume`` that of a training.
        recipe: How it is trained; written there.
        resume: Whether the folder may hold a training of the same recipe.

    Raises:
        SceneError: It holds one, or one of another recipe.
    """
    settings = folder / "recipe.json"
    mine = json.dumps(asdict(recipe), indent=2, default=str)
    if settings.exists() and not resume:
        raise SceneError(
            f"{folder} holds a training already",
            why="without --resume a training starts in a new folder",
            fix="add --resume to go on with it, or choose another --out",
        )
    if settings.exists() and settings.read_text() != mine:
        raise SceneError(
            f"{folder} holds a training of another recipe",
            why=f"its recipe is {settings}",
            fix="give the same options as before, or choose another --out",
        )
    folder.mkdir(parents=True, exist_ok=True)
    settings.write_text(mine)


def chosen_device(wish: Device) -> str:
    """Name of the device to train on, cuda or cpu.

    Raises:
        SceneError: A GPU is asked for, and there is none.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise SceneError(
            "cannot train on the GPU", why="torch sees no CUDA device", fix="use --device cpu"
        )
    return "cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu"


def load_average(network: nn.Module, path: Path) -> None:
    """Put the averaged weights of a finished stage into a network.

    Raises:
        SceneError: The file is missing, damaged or of another network.
    """
    arrays, _ = _read(path)
    known = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in arrays.items():
            if name.startswith("average."):
                target = known.get(name.removeprefix("average."))
                if target is None or target.shape != value.shape:
                    raise _damaged(path, f"the network has no {name} of shape {tuple(value.shape)}")
                target.copy_(value)


def is_finished(path: Path) -> bool:
    """Whether a stage has a state on disk that reached its last step."""
    if not path.exists():
        return False
    _, about = _read(path)
    return int(about["step"]) >= int(about["total"])


def seen_steps(path: Path) -> int:
    """How many steps a state on disk has seen."""
    return int(_read(path)[1]["step"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["state"])
            return {key: file.get_tensor(key) for key in file.keys()}, about
    except FileNotFoundError as error:
        raise SceneError(
            f"there is no training state {path}",
            why="that stage was not run yet",
            fix="run the steps before this one first, or all of them (--step all)",
        ) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> SceneError:
    return SceneError(
        f"the training state {path} cannot be used",
        why=why,
        fix="remove that file and run its step again, or start in another folder",
    )
