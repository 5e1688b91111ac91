"""ONNX files through ONNX Runtime, set up so that answers repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenegen.models.store import model_path

if TYPE_CHECKING:
    import onnxruntime

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
