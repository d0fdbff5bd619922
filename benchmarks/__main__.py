"""`make bench-harness`: runs all benchmarks, or those named, and fails when a goal is missed."""

import sys

from benchmarks import clock, dummy_weights, int4, shapes, start_up
from benchmarks.goal import show
from xpubench.errors import UserError, unknown

BENCHMARKS = {
    "start_up": start_up.run,
    "dummy_weights": dummy_weights.run,
    "clock": clock.run,
    "shapes": shapes.run,
    "int4": int4.run,
}


def main(names: list[str]) -> int:
    """Runs the named benchmarks, prints each figure beside its goal, and returns the exit code."""
    for name in names:
        if name not in BENCHMARKS:
            raise unknown("benchmark", name, list(BENCHMARKS))
    return show(goal for name in names or list(BENCHMARKS) for goal in BENCHMARKS[name]())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
