"""What tests of comparisons share: runs, how rounds drift, and the one run of a result."""

import json
from typing import Any

from tests import records
from xpubench.record import Record

BASE = records.latency_record(records.subject())
# How much the rounds of a test drift, both sides alike.
DRIFT = (1.0, 1.3, 0.9)


def slowed(factor: float, seed: int = 1, **fields: Any) -> Record:
    return records.latency_record(
        records.subject(**fields), next_ms=20.0 * factor, first_ms=200.0 * factor, seed=seed
    )


def only_run(done: Any) -> dict[str, Any]:
    """The one run of `--json`."""
    (run,) = json.loads(done.out)["runs"]
    return dict(run)
