"""Depth networks on disk: see :mod:`scenegen.models.weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scenegen.geometry.dpt import DepthLayout, DepthNetwork
from scenegen.models.weights import load_network, pack_network


def load_depth_network(path: Path) -> DepthNetwork:
    """Read and verify a depth network; errors as :func:`scenegen.models.weights.load_network`."""
    return load_network(path, lambda **sizes: DepthNetwork(DepthLayout(**sizes)))


def pack_depth_network(network: DepthNetwork, about: dict[str, Any]) -> tuple[bytes, str]:
    """The two files of a network; see :func:`scenegen.models.weights.pack_network`."""
    return pack_network(network, network.layout, about)
