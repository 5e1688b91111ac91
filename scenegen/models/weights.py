"""Networks of this project on disk: half-precision safetensors, and a model card beside it.

``NAME.safetensors`` holds all weights. ``NAME.json`` says what they are: the sizes of the network,
the sha256 of the file, seed, data, measured quality and licences. No file is used whose hash is not
the card's, and nothing here can run code from a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, isfinite, nn

from renderers.errors import SceneError

CARD_FORMAT = 1
"""Version of the card; older ones are read, newer ones refused."""


N = TypeVar("N", bound=nn.Module)


def load_network(path: Path, make: Callable[..., N]) -> N:
    """Read and verify a network, ready to be asked (float32, evaluation mode).

    Args:
        path: The ``.safetensors`` file; its card lies beside it.
        make: Makes the network from the sizes that the card has, as keywords.

    Raises:
        SceneError: A file is missing, damaged, of a newer version, or not what the card says.
    """
    card = read_card(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unusable(path, f"it cannot be read: {error.strerror or error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != card["sha256"]:
        raise _unusable(path, f"its sha256 is {digest}, the card says {card['sha256']}")
    try:
        network = make(**card["layout"])
        network.load_state_dict({name: value.float() for name, value in load(data).items()})
    except (SafetensorError, TypeError, RuntimeError) as error:
        raise _unusable(path, str(error).splitlines()[0]) from error
    return network.eval()


def read_card(path: Path) -> dict[str, Any]:
    """The model card of a file of weights.

    Raises:
        SceneError: There is no such card, it is damaged, or of a newer version.
    """
    place = path.with_suffix(".json")
    try:
        card = json.loads(place.read_text())
    except FileNotFoundError as error:
        raise _unusable(path, f"there is no model card {place}") from error
    except (OSError, ValueError) as error:
        raise _unusable(path, f"its model card cannot be read: {error}") from error
    if not isinstance(card, dict) or not {"format", "sha256", "layout"} <= card.keys():
        raise _unusable(path, "its model card lacks the format, the sha256 or the layout")
    if card["format"] > CARD_FORMAT:
        raise SceneError(
            f"the network {path} is newer than this program",
            why=f"its card has format {card['format']}, formats up to {CARD_FORMAT} are known",
            fix="update scenegen-worlds",
        )
    return card


def pack_network(network: nn.Module, layout: Any, about: dict[str, Any]) -> tuple[bytes, str]:
    """The two files of a network: weights in half precision, and the text of its card.

    Args:
        network: The network.
        layout: Its sizes, a dataclass.
        about: What the card says besides the format, the sizes, the hash and the length.

    Raises:
        SceneError: A weight does not fit into half precision.
    """
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        state[name] = value.detach().cpu().half().contiguous()
        if not isfinite(state[name]).all():
            raise SceneError(
                "cannot write the network",
                why=f"{name} holds a value beyond half precision, or NaN",
                fix="train again with a lower learning rate",
            )
    data = save(state)
    card = {
        "format": CARD_FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "layout": asdict(layout),
        **about,
    }
    return data, json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _unusable(path: Path, why: str) -> SceneError:
    return SceneError(
        f"cannot load the network {path}",
        why=why,
        fix="get both files again (reinstall scenegen-worlds), or choose another backend",
    )
