"""The records of results directories, with a list of the files that are none."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from xpubench.results import Found, LeftOut, nothing_found, records_in


def each_record(directories: Iterable[Path], left_out: list[tuple[str, str]]) -> Iterator[Found]:
    """Each record of the directories and of their rounds, one in memory at a time. The path of each file that
    is no record is appended to `left_out` with the reason.

    UserError when a directory cannot be read, and at the end when no record was found.
    """
    paths = list(dict.fromkeys(directories))
    empty = True
    for found in (one for path in paths for one in records_in(path)):
        if isinstance(found, LeftOut):
            left_out.append((str(found.path), found.reason))
        else:
            empty = False
            yield found
    if empty:
        raise nothing_found(paths, left_out)
