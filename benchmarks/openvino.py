"""`make bench-openvino`: OpenVINO's runtimes beside what llm_bench's method gives of the same IR, and what
the cache of exports saves. Each runtime takes ten fresh processes in turns, or as many as the argument says:
the same IR compiled again can differ by a fifth, so that few processes decide nothing."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from statistics import mean, median
from time import perf_counter

from benchmarks.goal import Goal, show
from xpubench.compare.intervals import paired
from xpubench.record import Record, decode

MODEL = "smollm2-135m"
GENAI, BASE = "openvino-genai", "openvino-base"
LLM_BENCH = "llm_bench's method"
PROCESSES = 10
# At most so many times the next token latency of GenAI, in the base runtime.
BASE_LIMIT = 1.02
ITERATIONS = 7
INPUT_TOKENS, NEW_TOKENS = 128, 64
SHAPE = (
    *("--greedy", "--dtype", "float32", "--num-iter", str(ITERATIONS + 3), "--num-warmup", "3"),
    *("--input-tokens", str(INPUT_TOKENS), "--max-new-tokens", str(NEW_TOKENS)),
)


def run(processes: int) -> Iterator[Goal]:
    """The time until a second run with a new cache of exports can generate, over that of the first; and the
    next token latency of each runtime over what llm_bench's method gives, in turns."""
    with tempfile.TemporaryDirectory() as cache:
        shortest = ("--greedy", "--dtype", "float32", "--input-tokens", "8", "--max-new-tokens", "2")
        _generate("pytorch", cache, *shortest, "--num-iter", "1")  # converts the embedded model, no export
        (first, first_whole), (second, second_whole) = (_start_s(cache, *shortest) for _ in range(2))
        detail = (
            f"{second:.1f} s after {first:.1f} s; with checks, bandwidth and two tokens {second_whole:.1f} s "
            f"after {first_whole:.1f} s, {second_whole / first_whole:.2f}"
        )
        yield Goal("start with the cache of exports / the first", second / first, 0.25, "", detail)

        (ir,) = (Path(cache) / "xpubench" / "openvino").glob(f"{MODEL}-fp32-*")
        names = (LLM_BENCH, GENAI, BASE)
        rounds: dict[str, list[list[float]]] = {name: [] for name in names}
        peaks: dict[str, int] = {}
        for index in range(processes):
            turn = index % len(names)
            for name in names[turn:] + names[:turn]:
                rows, peaks[name] = _llm_bench(ir) if name == LLM_BENCH else _ours(name, cache)
                rounds[name].append(rows)
        for name in names:
            medians = sorted(median(rows) for rows in rounds[name])
            print(f"{name}: {' '.join(f'{one:.2f}' for one in medians)} ms a token, by process", flush=True)
        for name, other, limit in ((GENAI, LLM_BENCH, 1), (BASE, LLM_BENCH, 1), (BASE, GENAI, BASE_LIMIT)):
            # llm_bench reports means over the tokens; so these are.
            found = paired(*([log(median(rows)) for rows in rounds[side]] for side in (other, name)))
            ratio, low, high = map(exp, (found.estimate, found.low, found.high))
            detail = (
                f"95% {low:.3f} to {high:.3f}; "
                f"peak {peaks[name] / 1e9:.2f} GB beside {peaks[other] / 1e9:.2f} GB"
            )
            yield Goal(f"next token of {name} / {other}", ratio, limit, "", detail, low=low)


def _ours(runtime: str, cache: str) -> tuple[list[float], int]:
    """Each iteration's mean next token latency in milliseconds, and the peak of the host's memory."""
    (record,) = _generate(runtime, cache, *SHAPE)
    rows = [one.next_token_ns for one in record.samples.iterations if one.next_token_ns]
    assert record.summary is not None
    return [mean(row) / 1e6 for row in rows], record.summary.peak_host_bytes or 0


def _llm_bench(ir: Path) -> tuple[list[float], int]:
    asked = [str(ir), str(INPUT_TOKENS), str(NEW_TOKENS), str(ITERATIONS)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.llm_bench", *asked], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return found["next_token_ms"], found["peak_host_bytes"]


def _start_s(cache: str, *flags: str) -> tuple[float, float]:
    """The seconds until openvino-base could generate: until it says that it loads, and the load; and those of
    the whole process."""
    start = perf_counter()
    with subprocess.Popen(
        _command(BASE, cache, *flags, "--num-iter", "1"),
        env=os.environ | {"XDG_CACHE_HOME": cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("loading "):
                seconds = perf_counter() - start
        if process.wait() != 0:
            raise RuntimeError("".join(lines))
        summary = decode(process.stdout.readline()).latency
    assert summary is not None
    return seconds + summary.load_s, perf_counter() - start


def _command(runtime: str, cache: str, *flags: str) -> list[str]:
    command = [sys.executable, "-m", "xpubench", "generate", "-m", MODEL, "--device", "cpu", "--json"]
    return [*command, "--runtime", runtime, "--results-dir", str(Path(cache) / "results"), *flags]


def _generate(runtime: str, cache: str, *flags: str) -> list[Record]:
    done = subprocess.run(
        _command(runtime, cache, *flags),
        env=os.environ | {"XDG_CACHE_HOME": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return [decode(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processes", type=int, nargs="?", default=PROCESSES, metavar="N")
    sys.exit(show(run(parser.parse_args().processes)))
