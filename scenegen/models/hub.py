"""Models of the Hugging Face hub: which are known, their licences, and where their files lie.

Loading never goes online: what is used was pulled before, with `scenegen models pull`, or lies in
a folder that was named. The cache is that of the hub's own client, shared with other programs.
Reading the cache needs no package, so that `--help` and `doctor` stay quick.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from renderers.errors import SceneError

logger = logging.getLogger("scenegen")

PATTERNS = ("*.json", "*.txt", "*.jinja", "*.safetensors", "*.md", "model.pt")
"""Files of a repository that are pulled."""
TRUE = {"1", "ON", "YES", "TRUE"}
"""Values of HF_HUB_OFFLINE that mean yes, as the hub's client reads them."""


@dataclass(frozen=True)
class HubModel:
    """A repository of the hub whose licence was looked up."""

    name: str
    """What the user types: `scenegen models pull NAME`."""
    role: str
    """What it is for."""
    repo: str
    """OWNER/NAME on the hub."""
    licence: str
    """Licence of the weights, as an SPDX name."""
    commercial: bool
    """Whether what is made with it may be sold. If not, nothing but its own name selects it."""
    size: int
    """Length of its weights, about, in bytes."""
    quality: str
    """One line: what it does well and what it does not."""


_TABLE = (
    HubModel(
        "depth-anything",
        "depth",
        "depth-anything/Depth-Anything-V2-Small-hf",
        "Apache-2.0",
        True,
        99_000_000,
        "relative depth of any scene; metres from the ground it sees; not measured here yet",
    ),
    HubModel(
        "depth-anything-base",
        "depth",
        "depth-anything/Depth-Anything-V2-Base-hf",
        "CC-BY-NC-4.0",
        False,
        390_000_000,
        "as depth-anything, with four times the weights; not measured here yet",
    ),
    HubModel(
        "depth-anything-large",
        "depth",
        "depth-anything/Depth-Anything-V2-Large-hf",
        "CC-BY-NC-4.0",
        False,
        1_340_000_000,
        "as depth-anything, with thirteen times the weights; not measured here yet",
    ),
    HubModel(
        "moge",
        "depth",
        "Ruicheng/moge-2-vits-normal",
        "MIT",
        True,
        140_000_000,
        "metric points of any scene; needs the package `moge`; not measured here yet",
    ),
    HubModel(
        "flux",
        "outpaint",
        "black-forest-labs/FLUX.2-klein-4B",
        "Apache-2.0",
        True,
        16_000_000_000,
        "fills any hole, shown a remembered view; a GPU with 16 GB; not measured here yet",
    ),
    HubModel(
        "sdxl",
        "outpaint",
        "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        "OpenRAIL++",
        True,
        21_000_000_000,
        "fills any hole; a GPU with 10 GB; its licence forbids some uses; not measured here yet",
    ),
)
HUB_MODELS: dict[str, HubModel] = {model.name: model for model in _TABLE}


def is_hub(name: str) -> bool:
    """Whether a name means the hub: one of HUB_MODELS, or OWNER/NAME."""
    return name in HUB_MODELS or (name.count("/") == 1 and not Path(name).exists())


def hub_cache() -> Path:
    """Folder in which the hub's client keeps repositories; it need not exist."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(variable):
            return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "huggingface" / "hub"


def hub_missing(source: str) -> str | None:
    """Why the files of a model cannot be read here, or None when they can. Cheap."""
    try:
        hub_folder(source)
    except SceneError as error:
        return error.why
    except (OSError, RuntimeError) as error:  # no home folder, no right to look into it
        return str(error)
    return None


def hub_folder(source: str) -> Path:
    """The folder with the files of a model.

    Args:
        source: A folder; a name of HUB_MODELS; or OWNER/NAME, looked up in the hub's cache.

    Raises:
        SceneError: There is no such folder, or it was not pulled.
    """
    folder = Path(source).expanduser()
    if source not in HUB_MODELS and folder.is_dir():
        return folder
    repo = HUB_MODELS[source].repo if source in HUB_MODELS else source
    if repo.count("/") != 1:
        raise SceneError(
            f"no model {source!r}",
            why="it is neither a folder, nor OWNER/NAME on the hub",
            fix=f"check the spelling; known names are: {', '.join(HUB_MODELS)}",
        )
    kept = hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        revision = (kept / "refs" / "main").read_text().strip()
    except OSError:
        revision = ""
    snapshot = kept / "snapshots" / revision
    if not revision or not snapshot.is_dir():
        raise SceneError(
            f"the model {source} is not on this machine",
            why=f"{repo} is not in the cache of the hub's client",
            fix=f"run `scenegen models pull {source}` online, once, or name the folder it is in",
        )
    return snapshot


def check_blob(file: Path) -> None:
    """Hash a large file of the hub's cache, whose own name there is its sha256.

    Files in other folders are taken as they are: nothing says what they should be.

    Raises:
        SceneError: The bytes are not those that the hub sent.
    """
    named = file.resolve().name
    if not re.fullmatch("[0-9a-f]{64}", named):
        return
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != named:
        raise SceneError(
            f"the file {file.name} in the hub's cache is damaged",
            why=f"its sha256 is {digest}, {named} was sent",
            fix=f"delete {file.resolve()} and pull the model again",
        )


def licence_line(source: str) -> str:
    """What is to be said about the licence of a model when it is used."""
    known = next((m for m in HUB_MODELS.values() if source in (m.name, m.repo)), None)
    if known is None:
        licence = _card_licence(hub_folder(source))
        read = f"licence {licence}" if licence else "no licence stated"
        return f"{source}: {read}; not checked by this project: read its model card before use"
    if known.commercial:
        return f"{known.repo}: licence {known.licence}"
    return f"{known.repo}: licence {known.licence}: NOT for commercial use, nor what it makes"


@lru_cache
def say_licence(source: str) -> None:
    """Log that line, once per process and model."""
    logger.info(licence_line(source))


def first_line(error: Exception) -> str:
    """What an error of another library says, short enough for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _card_licence(folder: Path) -> str | None:
    """The licence in the front matter of a model card, where there is one."""
    try:
        lines = (folder / "README.md").read_text(errors="replace").splitlines()
    except OSError:
        return None
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        if key.strip() == "license":
            return value.strip() or None
    return None


def pull_hub(source: str, progress: Callable[[str], None] | None = None) -> Path:
    """Download what is missing of a model with the hub's own client.

    Args:
        source: A name of HUB_MODELS, or OWNER/NAME.
        progress: Called with each line of news; logged when left out.

    Returns:
        The folder with its files.

    Raises:
        SceneError: The client is not installed, is told to stay offline, or fails.
    """
    say = progress or logger.info
    repo = HUB_MODELS[source].repo if source in HUB_MODELS else source
    what = f"cannot download {repo}"
    elsewhere = "or get its files on another machine and name their folder"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE:
        if hub_missing(source) is None:
            return hub_folder(source)
        raise SceneError(what, why="HF_HUB_OFFLINE is set", fix=f"unset it, {elsewhere}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        fix = "pip install 'scenegen-worlds[hub]'"
        raise SceneError(what, why="huggingface_hub is not installed", fix=fix) from error
    say(f"{source}: downloading {repo}")
    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(PATTERNS)))
    except Exception as error:  # the client raises errors of several HTTP libraries
        fix = f"check name and network, {elsewhere}"
        raise SceneError(what, why=first_line(error), fix=fix) from error
    say(licence_line(source))
    return folder
