"""`python -m benchmarks.slowed`: what `compare` says of a model that ran twice, and of one slowed by 10%."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.goal import Goal, show
from xpubench.record import read_record

ROOT = Path(__file__).parent.parent
SHARE, ROUNDS = 0.1, 5
FLAGS = ("-m", "smollm2-135m", "--device", "cpu", "--dtype", "bfloat16", "--greedy")
SHAPE = ("--input-tokens", "64", "--max-new-tokens", "32", "--num-iter", "15")
# The worker with a clock that waits so many nanoseconds at each token.
WORKER = """
import sys, time
from xpubench.measure.clock import TokenClock
from xpubench.cli.main import main
wait_ns, plain = int(sys.argv.pop(1)), TokenClock.__call__
def slower(self, *arguments, **named):
    end = time.perf_counter_ns() + wait_ns
    while time.perf_counter_ns() < end:
        pass
    return plain(self, *arguments, **named)
TokenClock.__call__ = slower
sys.exit(main())
"""


def run() -> Iterator[Goal]:
    """Whether `xpubench compare` says that the same twice changed, and whether it finds the slowed one, in
    rounds in which all three take turns. With noise, the same twice may be inconclusive."""
    with tempfile.TemporaryDirectory() as name:
        base, again, slowed = (Path(name) / side for side in ("base", "again", "slowed"))
        wait_ns = 0
        for number in range(1, ROUNDS + 1):
            _generate(base / f"round-{number}", 0)
            wait_ns = wait_ns or _share_of_a_token(base / f"round-{number}")
            _generate(again / f"round-{number}", 0)
            _generate(slowed / f"round-{number}", wait_ns)
        _, said = _compare(base, again)
        changed = said.startswith(("slower", "faster"))
        yield Goal("the same twice is called slower or faster", changed, 0, "", said)
        code, said = _compare(base, slowed)
        yield Goal("1 less the exit code of compare, slowed by 10%", abs(1 - code), 0, "", said)


def _share_of_a_token(results: Path) -> int:
    """So many nanoseconds as `SHARE` of the median next token latency is."""
    (path,) = results.glob("*.json")
    summary = read_record(path).latency
    assert summary is not None
    assert summary.next_token_ms is not None
    return int(SHARE * 1e6 * summary.next_token_ms.median)


def _generate(results: Path, wait_ns: int) -> None:
    command = [sys.executable, "-c", WORKER, str(wait_ns), "generate", *FLAGS, *SHAPE]
    subprocess.run([*command, "--results-dir", str(results)], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def _compare(base: Path, new: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "xpubench", "compare", str(base), str(new)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, next(line for line in done.stdout.splitlines() if ": " in line)


if __name__ == "__main__":
    sys.exit(show(run()))
