"""ONNX files: run by ONNX Runtime, set up so that answers repeat, or read for their weights."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from renderers.errors import SceneError
from scenegen.models.store import is_present, model_path

if TYPE_CHECKING:
    import onnxruntime
    from torch import Tensor

THREADS = 2
"""Fixed, not the machine's core count: sums split differently would change the last bits."""


def onnx_session(name: str) -> onnxruntime.InferenceSession:
    """Open a pulled model after verifying it.

    Args:
        name: Name in the registry.

    Raises:
        SceneError: The file is missing or is not the one that the registry names.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model_path(name), options, providers=providers)


def missing_graph(name: str, title: str) -> str | None:
    """Why the weights of a pulled model cannot be read here, or None when they can. Cheap.

    Args:
        name: Name in the registry.
        title: What people call it.
    """
    if not is_present(name):
        return f"the weights of {title} ({name}) are not on this machine"
    if importlib.util.find_spec("onnx") is None:
        return "the package onnx, which reads them, is not installed"
    return None


def read_graph(name: str, title: str) -> tuple[list[Any], dict[str, Tensor]]:
    """Nodes and weights of a pulled model, verified by its sha256; arguments as missing_graph.

    Raises:
        SceneError: The file or the package ``onnx`` is missing, or it is another file.
    """
    path = model_path(name)
    if why := missing_graph(name, title):
        raise SceneError(
            f"cannot read {title}", why=why, fix="pip install 'scenegen-worlds[training]'"
        )
    import onnx
    import torch

    graph = onnx.load(path).graph
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    return list(graph.node), {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}
