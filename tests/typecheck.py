"""The type checker that tests run under: beartype, with int allowed where float is asked for."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
