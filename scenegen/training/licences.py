"""Which files of a Debian package may be trained on, read from its machine-readable copyright file.

The format is DEP-5: the last stanza whose patterns match a file holds for it. Taken are works
that may be changed and passed on with credit alone or under the same terms: CC0, CC BY, CC BY-SA,
public domain and the like, and, where asked for, the GPL, which is also what holds for files
that have no stanza of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from renderers import SceneError

TAKEN = ("cc0", "cc-by", "public-domain", "mit", "zlib", "apache-2.0", "expat")
"""Beginnings of the names of licences that are always taken."""


@dataclass(frozen=True)
class Stanza:
    """Files that share a licence."""

    patterns: tuple[re.Pattern[str], ...]
    copyright: str
    licence: str
    """Short name, as the copyright file has it."""


class Licences:
    """Licences of the files of one package."""

    def __init__(self, copyright_file: Path, gpl: bool) -> None:
        """Read a copyright file.

        Args:
            copyright_file: ``/usr/share/doc/PACKAGE/copyright``.
            gpl: Whether files under the GPL are taken too.

        Raises:
            SceneError: It cannot be read.
        """
        try:
            text = copyright_file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise SceneError(
                f"cannot read the licences in {copyright_file}",
                why=str(error),
                fix="install the Debian package again; minimal systems leave such files out",
            ) from error
        self.taken = (*TAKEN, "gpl") if gpl else TAKEN
        self.stanzas = _stanzas(text)
        self._of = lru_cache(maxsize=None)(self._find)

    def of(self, path: str) -> Stanza | None:
        """The stanza that holds for a path relative to the source package."""
        return self._of(path)

    def may_train(self, path: str) -> bool:
        """Whether a file is under a licence that is taken."""
        stanza = self.of(path)
        return stanza is not None and is_taken(stanza.licence, self.taken)

    def _find(self, path: str) -> Stanza | None:
        for stanza in reversed(self.stanzas):
            if any(pattern.fullmatch(path) for pattern in stanza.patterns):
                return stanza
        return None


def is_taken(expression: str, taken: tuple[str, ...] = TAKEN) -> bool:
    """Whether a licence expression allows training: one of its "or" parts must, wholly."""
    choices = re.split(r"\s+or\s+|\s*\|\s*", expression.lower())
    return any(
        all(name.strip().startswith(taken) for name in re.split(r"\s+and\s+|,", choice))
        for choice in choices
    )


def _stanzas(text: str) -> list[Stanza]:
    found = []
    for block in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(\S[^:\n]*):((?:.*)(?:\n[ \t].*)*)", block, re.MULTILINE))
        if "Files" in fields and "License" in fields:
            patterns = tuple(_pattern(word) for word in fields["Files"].split())
            authors = " ".join(fields.get("Copyright", "").split())
            licence = fields["License"].strip().split("\n")[0].strip()
            found.append(Stanza(patterns, authors, licence))
    return found


def _pattern(glob: str) -> re.Pattern[str]:
    """DEP-5 wildcards: ``*`` is any text, slashes too; ``?`` is one character."""
    return re.compile(re.escape(glob).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
