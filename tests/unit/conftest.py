"""Fixtures of the comparisons."""

from pathlib import Path
from typing import Any

import pytest

from tests import records
from tests.comparing import DRIFT
from tests.conftest import CommandLine
from xpubench.record import Record, encode


@pytest.fixture
def compare(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`compare(base, new, *flags)` of two records."""

    def run(base: Record, new: Record, *flags: object) -> Any:
        for name, record in (("base.json", base), ("new.json", new)):
            (tmp_path / name).write_bytes(encode(record))
        return xpubench("compare", tmp_path / "base.json", tmp_path / "new.json", *flags)

    return run


@pytest.fixture
def in_turns(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`in_turns(factor, *flags, count=3, **fields)`: a run and one that is so much slower, in rounds in which
    they took turns; the fields are those of the slower one's records."""

    def run(factor: float, *flags: object, count: int = 3, **fields: Any) -> Any:
        for number, drift in zip(range(1, count + 1), (*DRIFT, *DRIFT), strict=False):
            records.round_of(tmp_path / "a", number, slow=drift)
            records.round_of(tmp_path / "b", number, slow=drift * factor, second=True, **fields)
        return xpubench("compare", tmp_path / "a", tmp_path / "b", *flags)

    return run
