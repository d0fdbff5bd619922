"""What differs in the environments of two sides."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from xpubench.record import Record

# Facts of one moment, which differ between any two runs.
VOLATILE = (
    *("device.free_memory_bytes", "host.available_memory_bytes", "host.load_average_1min"),
    *("harness.commit", "harness.version"),
)
MOST_VALUES = 3


class EnvironmentDifference(msgspec.Struct, frozen=True):
    """A fact of the environments that is not the same on both sides: its values, the most frequent first."""

    name: str
    a: str
    b: str


class Environments:
    """How often the environments of a side have each lasting fact."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts the facts of one more record."""
        for name, value in facts_of(record):
            self.counts[name][value] += 1


def facts_of(record: Record) -> Iterator[tuple[str, str]]:
    """The lasting facts of a record's environment, by their dotted paths."""
    return ((name, value) for name, value in record.environment.facts() if name not in VOLATILE)


def differences(a: Environments, b: Environments) -> list[EnvironmentDifference]:
    """The facts whose values are not the same on both sides, by name."""
    return [
        EnvironmentDifference(name, _values(a.counts[name]), _values(b.counts[name]))
        for name in sorted(a.counts.keys() | b.counts.keys())
        if a.counts[name].keys() != b.counts[name].keys()
    ]


def _values(counts: Counter[str]) -> str:
    if not counts:
        return "absent"
    shown = " | ".join(value for value, _ in counts.most_common(MOST_VALUES))
    return shown + (f" and {len(counts) - MOST_VALUES} more" if len(counts) > MOST_VALUES else "")
