"""Records of one process that lie in several places, such as a directory and its copy."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from xpubench.record import Record, encode
from xpubench.results import Found


def process_key(record: Record) -> bytes:
    """What is equal for all copies of one process's record, however their files are laid out: a hash of what
    it holds. Two processes differ at least in their times in ns or in their memory."""
    return blake2b(encode(record)).digest()


def without_copies(records: Iterable[Found], left_out: list[tuple[str, str]]) -> Iterator[Found]:
    """The first record of each process, because a copy is no repeat and tells nothing of the noise. The path
    of each other one is appended to `left_out` with the reason."""
    known: dict[bytes, str] = {}
    for found in records:
        key = process_key(found.record)
        if key in known:
            left_out.append((str(found.path), f"a copy of a process's record in {known[key]}"))
        else:
            known[key] = str(found.path)
            yield found
