"""Outpainting networks on disk: see :mod:`scenegen.models.weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scenegen.models.weights import load_network, pack_network
from scenegen.outpaint.network import Layout, OutpaintNetwork


def load_outpaint_network(path: Path) -> OutpaintNetwork:
    """Read and verify a network; errors as :func:`scenegen.models.weights.load_network`."""
    return load_network(path, lambda **sizes: OutpaintNetwork(Layout(**sizes)))


def pack_outpaint_network(network: OutpaintNetwork, about: dict[str, Any]) -> tuple[bytes, str]:
    """The two files of a network; see :func:`scenegen.models.weights.pack_network`."""
    return pack_network(network, network.layout, about)
