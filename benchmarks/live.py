"""What the command `xpubench` says in a process of its own, and its live comparisons."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A comparison ends after at most so many blocks.
BLOCKS = 8


def printed(*arguments: str) -> dict[str, Any]:
    """The JSON that a command prints."""
    done = subprocess.run([sys.executable, "-m", "xpubench", *arguments], stdout=subprocess.PIPE, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compared(
    base: Sequence[str],
    new: Sequence[str],
    results: Path,
    *,
    variables: Sequence[str] = (),
    new_variables: Sequence[str] = (),
    blocks: int = BLOCKS,
) -> dict[str, Any]:
    """The live comparison of two lists of flags of `xpubench generate`, as the JSON of `xpubench compare`
    holds a run. Both sides have `variables` in their environment, the new one `new_variables` too; the
    records stay in `results`."""
    flags = [shlex.join(base), shlex.join(new)]
    for side, own in (("--a-env", variables), ("--b-env", [*variables, *new_variables])):
        flags += [side, *own] if own else []
    places = ("--budget", str(blocks), "--results-dir", str(results))
    run: dict[str, Any] = printed("compare", "--live", *flags, *places, "--json")["runs"][0]
    return run
