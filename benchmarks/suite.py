"""`python -m benchmarks.suite [KILLS]`: a suite's cost beyond measuring, and what it loses when killed."""

import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

from benchmarks.goal import Goal, show
from xpubench.errors import UserError
from xpubench.record import Record, read_record

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "xpubench")
COST = 1.15
KILLS = 50
# From the start of a suite to the moment at which it is killed, at most; a set takes somewhat longer.
LATEST_S = 20.0
SHAPES = """title = "12 shapes of one model"
[[grid]]
models = ["smollm2-135m"]
flags = "--device cpu --dtype bfloat16 --greedy --max-new-tokens 16 --num-iter 32 --num-warmup 2"
vary = [["--input-tokens 16 32 48 64 96 128 --batch-size 1 2"]]
"""
# Four workers of three shapes each.
TINY = """title = "12 shapes of a tiny model"
[[grid]]
models = ["llama-tiny"]
flags = "--dummy-weights --device cpu --dtype float32 --greedy --max-new-tokens 4 --num-iter 2"
vary = [["--input-tokens 8 16 24"], ["--batch-size 1", "--batch-size 2"], ["", "--use-static-cache"]]
"""

TINY_CONFIG = """{"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "vocab_size": 64,
"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}"""


def cost() -> Iterator[Goal]:
    """Wall time of a suite of 12 shapes / (its measured iterations + one load)."""
    with tempfile.TemporaryDirectory() as name:
        suite, results = Path(name) / "shapes.toml", Path(name) / "results"
        suite.write_text(SHAPES)
        start = perf_counter()
        subprocess.run(
            [*COMMAND, "suite", str(suite), "--results-dir", str(results)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        wall_s = perf_counter() - start
        summaries = [record for path in results.glob("*.json") if (record := read_record(path)).latency]
    measured_s = sum(one.end_to_end_ns / 1e9 for record in summaries for one in record.samples.iterations)
    load_s = max(record.latency.load_s for record in summaries if record.latency)
    detail = (
        f"{len(summaries)} shapes, {wall_s:.1f} s for {measured_s:.1f} s measured and {load_s:.1f} s of load"
    )
    yield Goal(
        "a suite / its measured iterations and one load", wall_s / (measured_s + load_s), COST, "", detail
    )


def kills(count: int, command: Sequence[str], suite: Path, latest_s: float, seed: int = 0) -> Iterator[Goal]:
    """Kills a suite with SIGKILL so many times, each at a random moment, and goes on with it; a full set is
    begun anew. What was written and is lost, or cannot be read, and what a last call leaves undone."""
    source = random.Random(seed)
    lost = sets = done = 0
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) / "results-0"
        for _ in range(count):
            before = _records(results)
            code = _killed(command, suite, results, source.uniform(0.1, latest_s))
            after = _records(results)
            lost += sum(after.get(one) != record for one, record in before.items())
            done += len(after) - len(before)
            if code == 0:
                sets += 1
                results = Path(name) / f"results-{sets}"
        undone = subprocess.run(
            [*command, "suite", str(suite), "--results-dir", str(results)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        ).returncode
    detail = f"{count} kills, {done} records in between, {sets} full sets"
    yield Goal("finished records that a kill loses", lost, 0, "", detail)
    yield Goal("exit code of the call that goes on after the last", undone, 0, "", detail)


def _killed(command: Sequence[str], suite: Path, results: Path, after_s: float) -> int | None:
    process = subprocess.Popen(
        [*command, "suite", str(suite), "--results-dir", str(results)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        return process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None


def _records(results: Path) -> dict[str, Record | None]:
    """The records by their files' names, None for what cannot be read."""
    found: dict[str, Record | None] = {}
    for path in results.glob("*.json"):
        try:
            found[path.name] = read_record(path)
        except UserError:
            found[path.name] = None
    return found


def run(count: int = KILLS) -> Iterator[Goal]:
    """Both."""
    yield from cost()
    with tempfile.TemporaryDirectory() as name:
        tiny, suite = Path(name) / "tiny", Path(name) / "tiny.toml"
        tiny.mkdir()
        (tiny / "config.json").write_text(TINY_CONFIG)
        suite.write_text(TINY.replace("llama-tiny", str(tiny)))
        yield from kills(count, COMMAND, suite, LATEST_S)


if __name__ == "__main__":
    sys.exit(show(run(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)))
