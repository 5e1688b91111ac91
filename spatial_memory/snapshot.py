"""A memory without its pixels, as plain arrays: what it takes to go on from there at once.

Views lie where whoever keeps them says, and are read when somebody asks for one. Of a view that
was changed since, its known pixels are kept as bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from spatial_memory.memory import MemoryConfig, ViewMemory
from spatial_memory.pictures import Source
from spatial_memory.sight import Sight
from spatial_memory.views import PROVENANCES, View


@dataclass(frozen=True)
class Masked:
    """A view of which fewer pixels are known than where it lies."""

    whole: Source
    bits: bytes
    """The known pixels, eight to a byte, row by row."""

    def view(self, provenance: str) -> View:
        """As :class:`Source` says."""
        view = self.whole.view(provenance)
        bits, count = np.frombuffer(self.bits, np.uint8), view.known.numel()
        if len(bits) != -(-count // 8):
            raise ValueError("its known pixels are not those of a picture of this size")
        known = np.unpackbits(bits, count=count).view(np.bool_).reshape(view.known.shape)
        return replace(view, known=torch.from_numpy(known))


def arrays_of(memory: ViewMemory) -> dict[str, np.ndarray]:
    """All of a memory but the pixels of its views, which must lie somewhere (``found``)."""
    ids = list(memory.views)
    sights = [memory.sights[view_id] for view_id in ids]
    masks = {view_id: _mask(memory, view_id) for view_id in ids}
    masks = {view_id: mask for view_id, mask in masks.items() if mask is not None}
    maps = [m.ravel() for sight in sights for m in (sight.inverse, sight.through)]
    return {
        "next_id": np.array([memory.views.next_id]),
        "pinned": np.array(sorted(memory.pinned), np.int64),
        "views": np.array(ids, np.int64),
        "provenances": np.array([PROVENANCES.index(memory.views.provenance(i)) for i in ids]),
        "masked": np.array(list(masks), np.int64),
        "mask_sizes": np.array([len(mask) for mask in masks.values()], np.int64),
        "masks": np.frombuffer(b"".join(masks.values()), np.uint8),
        "sight_shapes": np.array([s.inverse.shape for s in sights], np.int64).reshape(-1, 2),
        "sight_maps": np.concatenate([np.empty(0, np.float32), *maps]),
        "sight_lens": np.array([s.lens for s in sights]).reshape(-1, 4),
        "sight_poses": np.array([s.pose for s in sights]).reshape(-1, 3, 4),
        "sight_centers": np.array([s.center for s in sights]).reshape(-1, 3),
        "sight_far": np.array([s.far for s in sights], np.float64),
    } | {f"surfel_{name}": column for name, column in memory.surfels.arrays().items()}


def memory_of(
    arrays: Mapping[str, np.ndarray], config: MemoryConfig, source_of: Callable[[int], Source]
) -> ViewMemory:
    """The inverse of :func:`arrays_of`. The memory gives the same answers, bit for bit.

    Args:
        arrays: What that gave.
        config: That of the memory.
        source_of: Where the pixels of a view lie, by its id.

    Raises:
        KeyError: An array is missing, or there is no source for a view.
        ValueError: These are not the arrays of a memory.
    """
    memory, ids = ViewMemory(config), arrays["views"].tolist()
    ends = np.cumsum(arrays["mask_sizes"])
    if ends[-1:].sum() != len(arrays["masks"]) or len(ends) != len(arrays["masked"]):
        raise ValueError("its known pixels are incomplete")
    masks = dict(zip(arrays["masked"].tolist(), np.split(arrays["masks"], ends[:-1]), strict=False))
    for view_id, rank in zip(ids, arrays["provenances"].tolist(), strict=True):
        source = source_of(view_id)
        if view_id in masks:
            source = Masked(source, masks[view_id].tobytes())
        memory.views.adopt(view_id, source, PROVENANCES[rank])
    for view_id, sight in zip(ids, _sights(arrays), strict=True):
        memory.sights.add(view_id, sight)
    (next_id,) = arrays["next_id"].tolist()
    if next_id < memory.views.next_id or not {*masks, *arrays["pinned"].tolist()} <= {*ids}:
        raise ValueError("it names views that it does not hold")
    memory.views.next_id = next_id
    for view_id in arrays["pinned"].tolist():
        memory.pin(view_id)
    columns = {name[7:]: arrays[name] for name in arrays if name.startswith("surfel_")}
    memory.surfels.restore(columns)
    if not memory.surfels.observers.view_ids <= {*ids}:
        raise ValueError("surfels were seen by views that it does not hold")
    return memory


def _mask(memory: ViewMemory, view_id: int) -> bytes | None:
    """The known pixels of a view, where these are not those that it was written with."""
    source = memory.views.source(view_id)
    if isinstance(source, Masked):
        return source.bits
    return None if source else np.packbits(memory.views[view_id].known.numpy()).tobytes()


def _sights(arrays: Mapping[str, np.ndarray]) -> list[Sight]:
    shapes, maps = arrays["sight_shapes"], arrays["sight_maps"]
    numbers = [arrays[f"sight_{name}"] for name in ("lens", "poses", "centers", "far")]
    if not all(np.isfinite(values).all() for values in numbers) or (shapes < 1).any():
        raise ValueError("a sight has no lens, no place or no pixels")
    ends = np.cumsum(np.repeat(shapes.prod(1), 2))
    if ends[-1:].sum() != len(maps) or maps.dtype != np.float32:
        raise ValueError("its sights are incomplete")
    parts = np.split(maps, ends[:-1])
    return [
        Sight(inverse.reshape(shape), through.reshape(shape), lens, pose, center, float(far))
        for inverse, through, shape, lens, pose, center, far in zip(
            parts[::2], parts[1::2], shapes.tolist(), *numbers, strict=True
        )
    ]
