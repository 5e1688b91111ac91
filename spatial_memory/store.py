"""The views held, by id: some in memory, the others in files until somebody asks for them."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from renderers.errors import SceneError
from spatial_memory.pictures import Blob, Source, blob_name, decode, digest, encode
from spatial_memory.views import View


@dataclass(frozen=True)
class _Record:
    provenance: str
    source: Source | None
    """Where the picture lies; None while it is only in memory."""
    ours: bool = False
    """Whether the file is in our own temporary folder, and goes when the view goes."""


class ViewStore:
    """Views by id, in the order in which they were written. Ids are never used twice.

    At most ``cache_bytes`` of pixels stay in memory, those used last (and always the very last
    view). Others are written to a temporary folder, which goes when the store goes. Safe to use
    from several threads.
    """

    def __init__(self, cache_bytes: int, folder: Path | None = None) -> None:
        """Create an empty store.

        Args:
            cache_bytes: Pixels kept in memory, in bytes.
            folder: Where to make the temporary folder; the system's place when left out.
        """
        self.next_id = 0
        """Id of the next view."""
        self._records: dict[int, _Record] = {}
        self._cache: OrderedDict[int, View] = OrderedDict()  # last used last
        self._cached, self._room = 0, cache_bytes
        self._place = folder
        self._temporary: Path | None = None
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[int]:
        """Ids, ascending."""
        return iter(tuple(self._records))

    def __contains__(self, view_id: object) -> bool:
        return view_id in self._records

    def __getitem__(self, view_id: int) -> View:
        """One view.

        Raises:
            SceneError: There is no view of this id, or it was forgotten; or its file is gone or
                damaged.
        """
        with self._lock:
            self.check(view_id)
            if view_id in self._cache:
                self._cache.move_to_end(view_id)
                return self._cache[view_id]
            record = self._records[view_id]
            assert record.source is not None
            try:
                view = record.source.view(record.provenance)
            except ValueError as error:
                place = f" ({record.source.path.parent})" if isinstance(record.source, Blob) else ""
                raise SceneError(
                    f"the pixels of view {view_id} cannot be read",
                    why=f"{error}{place}",
                    fix="restore the folder from a copy, or forget the view",
                ) from error
            self._hold(view_id, view)
            return view

    def items(self) -> Iterator[tuple[int, View]]:
        """All ids with their views, ascending, read one after another."""
        return ((view_id, self[view_id]) for view_id in self)

    def check(self, view_id: int) -> None:
        """Make sure that a view is held.

        Raises:
            SceneError: There is no view of this id, or it was forgotten.
        """
        if view_id not in self._records:
            ids = ", ".join(map(str, list(self._records)[:20]))
            more = f" and {len(self) - 20} more" if len(self) > 20 else ""
            raise SceneError(
                f"the memory has no view {view_id}",
                why=f"it holds: {ids}{more}" if ids else "it is empty",
                fix="use an id that write() returned and that was not forgotten since",
            )

    def source(self, view_id: int) -> Source | None:
        """Where a view lies, if that is not in memory or in a file of our own."""
        record = self._records[view_id]
        return None if record.ours else record.source

    def provenance(self, view_id: int) -> str:
        """Whether a view was observed or generated, without reading its pixels."""
        return self._records[view_id].provenance

    def add(self, view: View) -> int:
        """Keep a view under the next id.

        Raises:
            SceneError: Pixels that no longer fit into memory cannot be written to a file.
        """
        with self._lock:
            view_id = self.next_id
            self._hold(view_id, view)
            self._records[view_id] = _Record(view.provenance, None)
            self.next_id += 1
            return view_id

    def replace(self, view_id: int, view: View) -> None:
        """Put another record in the place of one that is there."""
        with self._lock:
            self._hold(view_id, view)
            self._discard(self._records[view_id])
            self._records[view_id] = _Record(view.provenance, None)

    def remove(self, view_id: int) -> None:
        """Drop a view."""
        with self._lock:
            self._release(view_id)
            self._discard(self._records.pop(view_id))

    def found(self, view_id: int, source: Source) -> None:
        """Say where the pixels of a view lie as well, so that they need not be written out."""
        with self._lock:
            self._discard(self._records[view_id])
            self._records[view_id] = _Record(self._records[view_id].provenance, source)

    def adopt(self, view_id: int, source: Source, provenance: str) -> None:
        """Put back a view that lies elsewhere, unread; ascending ids only.

        Raises:
            ValueError: It is out of order.
        """
        if view_id < self.next_id:
            raise ValueError(f"view {view_id} is out of order")
        self._records[view_id] = _Record(provenance, source)
        self.next_id = view_id + 1

    def restore(self, view_id: int, blob: Blob, provenance: str) -> View:
        """Put back a view that is in a file; ascending ids only.

        Raises:
            ValueError: The file is missing, damaged or not that of a view.
        """
        view = decode(blob.read(), provenance)
        self.adopt(view_id, blob, provenance)
        self._hold(view_id, view)
        return view

    def contents(self, view_id: int) -> bytes:
        """What belongs into the file of a view. Pixels in memory repair a file that was damaged.

        Raises:
            ValueError: Its file is missing or damaged, and its pixels are not in memory.
        """
        with self._lock:
            record = self._records[view_id]
            if isinstance(record.source, Blob):
                try:
                    return record.source.read()
                except ValueError:
                    if view_id not in self._cache:
                        raise
                    self._records[view_id] = _Record(record.provenance, None)
            return encode(self[view_id])

    def _hold(self, view_id: int, view: View) -> None:
        """Keep pixels in memory, and write out those used longest ago until all fit."""
        while self._cache and self._cached + _size(view) > self._room:
            oldest = next(iter(self._cache))
            self._write_out(oldest)
            self._release(oldest)
        self._release(view_id)
        self._cache[view_id] = view
        self._cached += _size(view)

    def _release(self, view_id: int) -> None:
        view = self._cache.pop(view_id, None)
        self._cached -= 0 if view is None else _size(view)

    def _write_out(self, view_id: int) -> None:
        record = self._records[view_id]
        if record.source is not None:
            return
        data = encode(self._cache[view_id])
        sha256 = digest(data)
        try:
            path = self._own_folder() / f"{view_id}-{blob_name('view', sha256)}"
            path.write_bytes(data)
        except OSError as error:
            raise SceneError(
                "the memory cannot put pixels aside",
                why=str(error),
                fix="make room on the disk, choose another folder: ViewMemory(config, folder), "
                "or raise view_cache_mb",
            ) from error
        self._records[view_id] = replace(record, source=Blob(path, sha256), ours=True)

    def _own_folder(self) -> Path:
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="scenegen-memory-", dir=self._place))
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        return self._temporary

    @staticmethod
    def _discard(record: _Record) -> None:
        if record.ours and isinstance(record.source, Blob):
            record.source.path.unlink(missing_ok=True)


def _size(view: View) -> int:
    return sum(part.nbytes for part in (view.rgb, view.depth, view.known))
