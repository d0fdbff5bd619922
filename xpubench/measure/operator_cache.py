"""Keeps the comparison of a device's operators, so that each device, driver, stack, dtype and shape is
compared once."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec

from xpubench.environment import Environment
from xpubench.files import cache_directory, write_aside
from xpubench.measure.operator_cases import OperatorSizes
from xpubench.measure.operators import check_operators
from xpubench.record import OperatorChecks, now

# A new version of the comparison makes every kept one invalid.
VERSION = 1
# Variables that may differ between jobs and do not configure operators.
OF_COLLECTIVES = ("CCL_", "I_MPI_")


def checked_operators(
    environment: Environment,
    dtype: str,
    sizes: OperatorSizes,
    *,
    int4_group_size: int | None,
    say: Callable[[str], None],
) -> OperatorChecks:
    """The comparison that is kept for this environment's device, driver, versions and variables and for this
    dtype and these sizes, else a new one, which is kept when no operator was wrong or failed."""
    device = environment.device
    assert device is not None
    variables = {
        name: value for name, value in environment.variables.items() if not name.startswith(OF_COLLECTIVES)
    }
    stack = [device.kind, device.name, device.driver, environment.versions, variables]
    what = json.dumps([VERSION, *stack, dtype, sizes, int4_group_size], sort_keys=True)
    path = _path(hashlib.sha256(what.encode()).hexdigest()[:16])
    if (kept := _read(path)) is not None:
        return kept
    say(f"comparing the operators of {device.kind} in {dtype} with float64, once for this stack and model")
    results = list(check_operators(device.kind, dtype, sizes, int4_group_size=int4_group_size))
    others = [one for one in results if one.state != "right"]
    found = OperatorChecks(
        created=now(), device=device.name, dtype=dtype, right=len(results) - len(others), others=others
    )
    if path is not None and not found.problems("wrong", "failed"):
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_aside(path, msgspec.json.encode(found))
    return found


def _path(key: str) -> Path | None:
    try:
        return cache_directory() / "operators" / f"{key}.json"
    except RuntimeError:  # The user has no home.
        return None


def _read(path: Path | None) -> OperatorChecks | None:
    """The kept comparison; None where there is none, or where the file is broken or holds a problem."""
    try:
        found = None if path is None else msgspec.json.decode(path.read_bytes(), type=OperatorChecks)
    except (OSError, msgspec.DecodeError):
        return None
    return None if found is None or found.problems("wrong", "failed") else found
