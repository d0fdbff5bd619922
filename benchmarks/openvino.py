"""`make bench-openvino`: OpenVINO's runtimes against each other, and what the cache of exports saves."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.goal import Goal, show
from xpubench.measure.statistics import median_ratio
from xpubench.record import Record, decode

MODEL = "smollm2-135m"
RUNTIMES = ("openvino-genai", "openvino-base", "openvino")
ROUNDS = 3
SHAPE = ("--greedy", "--dtype", "float32", "--input-tokens", "128", "--max-new-tokens", "64")


def run() -> Iterator[Goal]:
    """The next token latency of openvino-base over that of openvino-genai, in turns; and the time of a second
    run with a new cache of exports over that of the first."""
    with tempfile.TemporaryDirectory() as cache:
        shortest = ("--greedy", "--input-tokens", "8", "--max-new-tokens", "2", "--num-iter", "1")
        times = []
        _generate("pytorch", cache, *shortest)  # converts the embedded model, which is no export
        for _ in range(2):
            start = perf_counter()
            _generate("openvino-base", cache, *shortest)
            times.append(perf_counter() - start)
        detail = f"{times[1]:.1f} s after {times[0]:.1f} s"
        yield Goal(
            "a second run with the cache of exports / the first", times[1] / times[0], 0.25, "", detail
        )

        rounds: dict[str, list[list[float]]] = {runtime: [] for runtime in RUNTIMES}
        for index in range(ROUNDS):
            for runtime in RUNTIMES[index:] + RUNTIMES[:index]:
                (record,) = _generate(runtime, cache, *SHAPE)
                rows = [one.next_token_ns for one in record.samples.iterations if one.next_token_ns]
                rounds[runtime].append([median(row) / 1e6 for row in rows])
        for runtime in RUNTIMES[1:]:
            ratio, low, high = median_ratio(rounds[RUNTIMES[0]], rounds[runtime], paired=True)
            assert low is not None
            # The figure is the interval's lower end: slower within the noise is not slower.
            detail = f"{ratio:.3f}, 95% {low:.3f} to {high:.3f}; limit on the lower end"
            yield Goal(f"next token latency of {runtime} / {RUNTIMES[0]}", low, 1, "", detail)


def _generate(runtime: str, cache: str, *flags: str) -> list[Record]:
    command = [sys.executable, "-m", "xpubench", "generate", "-m", MODEL, "--device", "cpu", "--json"]
    results = ["--runtime", runtime, "--results-dir", str(Path(cache) / "results")]
    done = subprocess.run(
        [*command, *results, *flags],
        env=os.environ | {"XDG_CACHE_HOME": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return [decode(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(show(run()))
