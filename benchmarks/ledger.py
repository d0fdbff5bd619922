"""Where the token's time goes: whether the parts add up, and whether the verdicts are right.

    make bench-ledger
    python -m benchmarks.ledger --only sums --models smollm2-135m --dtypes bfloat16 --processes 2

`sums` compares the parts of a next token with the time of tokens that were not profiled, in fresh processes,
on OpenVINO too where `make test-openvino` has made its environment;
`planted` plants slow-downs and asks for the verdict; `ranks` does so over two ranks; `quota` limits the
process's CPU time; `traces` reads traces of xpu and cuda that are made by hand; `cost` is what `--explain`
takes; `advice` tries each advice that a clean run gets. Ledgers that were refused as the processor was taken
away make a goal unclear, not missed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks.goal import Goal, show
from benchmarks.ledger_traces import run as traces
from benchmarks.live import compared
from xpubench.measure.ledger.ledger import LEAST_CPU_SHARE, MOST_DIFFERENCE
from xpubench.measure.ledger.measured import MOST_GENERATIONS
from xpubench.record import Record, read_record
from xpubench.runtimes.fake.slow_downs import SLOW_DOWNS
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Subject, Workload

ROOT = Path(__file__).parent.parent
SHAPE = ("--greedy", "--input-tokens", "64", "--max-new-tokens", "24", "--num-iter", "6", "--num-warmup", "1")
# A generation is several times as long with a late rank. Without --shm, the threads of gloo want
# processors beside those of the ranks, which a machine with as many cores as ranks does not have.
OVER_RANKS = ("--input-tokens", "16", "--max-new-tokens", "8", "--num-iter", "3", "--shm")
GENERATE = ("-m", "xpubench", "generate")
SMOLLM2 = "smollm2-135m"
PRECISIONS = {
    "float32": ("--dtype", "float32"),
    "bfloat16": ("--dtype", "bfloat16"),
    "int4": ("--dtype", "bfloat16", "--woq"),
}
PYTORCH, OPENVINO = "pytorch", ("openvino", "openvino-genai", "openvino-base")
OPENVINO_PYTHON = ROOT / ".venv-openvino" / "bin" / "python"
# OpenVINO's export is what quantizes for it.
OPENVINO_INT4 = ("--dtype", "bfloat16", "--weight-format", "int4")
# Hidden size, layers, heads, KV heads, intermediate size, vocabulary: the largest has 1.2 billion weights.
SHAPES = {
    "tiny": (64, 2, 4, 2, 128, 256),
    "30m": (384, 8, 6, 2, 1024, 32000),
    "110m": (768, 12, 12, 4, 2048, 32000),
    "500m": (896, 24, 14, 2, 4864, 151936),
    "1b": (2048, 16, 32, 8, 8192, 128256),
}
SETTINGS = {
    "float32": ("--dtype", "float32"),
    "bfloat16, static cache": ("--dtype", "bfloat16", "--use-static-cache"),
    "float32, 2 sequences": ("--dtype", "float32", "--batch-size", "2"),
}
# Which part of a token each slow-down of `benchmarks.slowed_ranks` lengthens.
SLOWED_RANKS = {"slow-all-reduce": "collectives", "late-rank": "waiting"}
# A CPU without AVX-512 sums only float32 through shared memory.
RANKS_SETTINGS = {
    "float32": ("--dtype", "float32"),
    "float32, static cache": ("--dtype", "float32", "--use-static-cache"),
    "float32, 2 sequences": ("--dtype", "float32", "--batch-size", "2"),
}
CAUSES = {
    "sleep": "host",
    "busy-python": "host",
    "debug-dispatch": "host",
    "second-read": "kernels",
    "quadratic-attention": "attention",
    "small-kernels": "kernels",
}
CGROUP, PERIOD_US, QUOTA_US = Path("/sys/fs/cgroup/cpu"), 100_000, 50_000


class SumCase(NamedTuple):
    """A model in a precision with a number of threads."""

    name: str
    flags: tuple[str, ...]
    threads: int
    python: str = sys.executable


def sums(arguments: argparse.Namespace, directory: Path) -> Iterator[Goal]:
    """How far the parts' sum is from the unprofiled tokens' time, at most, over fresh processes. The detail
    gives each process's difference, and in parentheses how far these tokens were above the timed ones."""
    for case in _cases(arguments, directory):
        found = [
            explained(case.flags, case.threads, directory, command=(case.python, *GENERATE))
            for _ in range(arguments.processes)
        ]
        ledgers = [one.explanation.next for one in found if one.explanation and one.explanation.next]
        quiet = [one for one in ledgers if (one.cpu_share or 1.0) >= LEAST_CPU_SHARE]
        each = ", ".join(
            f"{one.difference:+.1%}{'*' * (one not in quiet)} ({one.drift or 0:+.0%})" for one in ledgers
        )
        waited = f"; {len(ledgers) - len(quiet)} of {len(ledgers)} refused as the processor was taken (*)"
        missing = float("inf") if len(ledgers) < arguments.processes else 0.0
        yield Goal(
            f"parts against the wall, {case.name}, {case.threads} threads",
            max((abs(one.difference) for one in ledgers), default=missing),
            MOST_DIFFERENCE,
            "",
            each + waited * (len(quiet) < len(ledgers)),
            # Where all were refused, nothing is known, which is no missed goal.
            low=max((missing, *(abs(one.difference) for one in quiet))),
        )


def _cases(arguments: argparse.Namespace, directory: Path) -> Iterator[SumCase]:
    for threads in arguments.threads:
        for runtime in arguments.runtimes:
            if runtime != PYTORCH and SMOLLM2 in arguments.models:
                yield from _openvino_cases(runtime, threads, arguments.dtypes)
        for model in arguments.models if PYTORCH in arguments.runtimes else ():
            if model == SMOLLM2:
                for name in arguments.dtypes:
                    yield SumCase(f"{model} {name}", ("-m", model, *PRECISIONS[name]), threads)
            else:
                flags = ("-m", str(shape(model, directory)), "--dummy-weights", "--dtype", "float32")
                yield SumCase(f"{model} float32", flags, threads)


def _openvino_cases(runtime: str, threads: int, dtypes: Sequence[str]) -> Iterator[SumCase]:
    if not OPENVINO_PYTHON.exists():
        print(f"sums: {runtime} is left out, as there is no {OPENVINO_PYTHON}; make test-openvino makes it")
        return
    for name in dtypes:
        precision = OPENVINO_INT4 if name == "int4" else PRECISIONS[name]
        # OpenVINO counts its own threads.
        flags = ("-m", SMOLLM2, "--runtime", runtime, *precision, "--threads", str(threads))
        yield SumCase(f"{SMOLLM2} {name}, {runtime}", flags, threads, str(OPENVINO_PYTHON))


def shape(name: str, directory: Path) -> Path:
    """A directory with the config of a Llama of that shape, and no weights."""
    hidden, layers, heads, kv_heads, intermediate, vocabulary = SHAPES[name]
    path = directory / name
    path.mkdir(exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (path / "config.json").write_text(json.dumps(config))
    return path


def planted(arguments: argparse.Namespace, directory: Path) -> Iterator[Goal]:
    """Whether each planted slow-down gets its verdict, in each setting."""
    assert set(CAUSES) == set(SLOW_DOWNS)
    for kind in arguments.kinds:
        for setting, flags in SETTINGS.items():
            fault = ("-m", SMOLLM2, "--runtime", "faulty", "--fault", kind)
            yield _verdict(f"{kind}, {setting}", (CAUSES[kind],), (*fault, *flags), directory)


def _verdict(
    name: str, causes: Sequence[str], flags: Sequence[str], directory: Path, cgroup: Path | None = None
) -> Goal:
    record = explained(flags, 1, directory, cgroup)
    cause, said = _said(record)
    expected = " or ".join(causes)
    return Goal(f"wrong verdicts, {name}: {expected}", cause not in causes, 0, "", f"{cause}: {said}")


def _said(record: Record) -> tuple[str, str]:
    """The cause and the message of the record's verdict."""
    verdict = record.explanation.verdict if record.explanation else None
    return (verdict.cause, verdict.message) if verdict else ("none", "no verdict")


def ranks(arguments: argparse.Namespace, directory: Path) -> Iterator[Goal]:
    """Whether two ranks of which the sums are slow, or one is late, get that verdict and that part."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mpirun = shutil.which("mpirun", path=tools)
    if mpirun is None:
        print("ranks: left out, as there is no mpirun; make venv brings one")
        return
    for kind, part in SLOWED_RANKS.items():
        for setting, flags in RANKS_SETTINGS.items():
            two = (mpirun, *("-np", "2", "-bind-to", "core"))
            command = (*two, sys.executable, "-m", "benchmarks.slowed_ranks", kind)
            record = explained(("-m", SMOLLM2, *flags, *OVER_RANKS), 1, directory, command=command)
            cause, said = _said(record)
            ledger = record.explanation.next if record.explanation else None
            times: dict[str, float] = {one.name: one.ns for one in ledger.parts} if ledger else {}
            larger = max(("collectives", "waiting"), key=lambda name: times.get(name, 0.0))
            name = f"wrong verdicts, 2 ranks, {kind}, {setting}: communication, mostly {part}"
            yield Goal(name, (cause, larger) != ("communication", part), 0, "", f"{cause}, {larger}: {said}")


def quota(arguments: argparse.Namespace, directory: Path) -> Iterator[Goal]:
    """Whether a process that gets half of a processor by its cgroup's quota has no ledger."""
    cgroup = CGROUP / "xpubench-ledger"
    try:
        cgroup.mkdir()
    except OSError as error:
        print(f"quota: left out, no cgroup of version 1 can be made here ({error.strerror})")
        return
    try:
        (cgroup / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (cgroup / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        flags = ("-m", str(shape("tiny", directory)), "--dummy-weights", "--dtype", "float32")
        yield _verdict("half of a processor", ("clock",), flags, directory, cgroup)
    finally:
        cgroup.rmdir()


def cost(arguments: argparse.Namespace, directory: Path) -> Iterator[Goal]:
    """How many generations of the workload `--explain` makes, counted where the model is called."""
    workload = Workload(input_tokens=64, new_tokens=24)
    runtime = PyTorchRuntime.load(Subject(model=SMOLLM2, device="cpu", dtype="bfloat16"))
    runtime.prepare(workload)
    prompt_ids = np.ones((1, 64), dtype=np.int64)
    # The cost of an event is measured with a model of its own.
    with patch.object(runtime.model, "generate", wraps=runtime.model.generate) as generate:
        told = runtime.explain(prompt_ids, workload).generations
    detail = f"{SMOLLM2}, PyTorch; the record says {told}"
    yield Goal("further generations of --explain", generate.call_count, MOST_GENERATIONS, "", detail)


def advice(arguments: argparse.Namespace, directory: Path) -> Iterator[Goal]:
    """What each advice of a clean run changes in a live comparison, where its flags are PyTorch's own."""
    for name in arguments.dtypes:
        flags = ("-m", SMOLLM2, *PRECISIONS[name])
        record = explained(flags, 1, directory)
        verdict = record.explanation.verdict if record.explanation else None
        if verdict is None or not verdict.advice:
            print(f"{name}: no advice: {verdict.message if verdict else 'no verdict'}", flush=True)
            continue
        for line in verdict.advice:
            tried = tuple(word.strip(":,") for word in line.split() if word.startswith("--"))
            if "--runtime" in tried:
                print(f"{name}: not tried here: {line}", flush=True)
                continue
            base = ("--device", "cpu", *SHAPE, *flags)
            found = compared(
                base,
                (*base, *tried),
                directory / f"live-{name}{''.join(tried)}",
                variables=("OMP_NUM_THREADS=1",),
            )
            figure = found["primary"]
            if figure is None:
                print(f"{name}: {found['verdict']}, {found['reason']}: {line}", flush=True)
                continue
            detail = f"{found['verdict']}: {line}"
            ends = {"low": figure["low"], "high": figure["high"]}
            yield Goal(
                f"next token with the advice / without, {name}", figure["change"], 1.0, "", detail, **ends
            )


def explained(
    flags: Sequence[str],
    threads: int,
    directory: Path,
    cgroup: Path | None = None,
    command: Sequence[str] = (sys.executable, *GENERATE),
) -> Record:
    """The record of a run of the command with `--explain` in a process of its own, in that cgroup."""
    with tempfile.TemporaryDirectory(dir=directory) as results:
        words = [*command, "--device", "cpu", *SHAPE, *flags, "--explain", "--results-dir", results]
        enter = f"echo $$ > {cgroup}/tasks && " if cgroup else ""
        subprocess.run(
            ["sh", "-c", f'{enter}exec "$0" "$@"', *words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        (path,) = Path(results).glob("*.json")
        return read_record(path)


PARTS = {
    "sums": sums,
    "planted": planted,
    "ranks": ranks,
    "quota": quota,
    "traces": traces,
    "cost": cost,
    "advice": advice,
}


def main(words: list[str]) -> int:
    """Prints each goal of the chosen parts; the exit code is 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", default=[SMOLLM2, *SHAPES], choices=[SMOLLM2, *SHAPES])
    parser.add_argument("--dtypes", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    runtimes = [PYTORCH, *OPENVINO]
    parser.add_argument("--runtimes", nargs="+", choices=runtimes, default=runtimes)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=CAUSES, default=list(CAUSES))
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as directory:
        return show(goal for part in arguments.only for goal in PARTS[part](arguments, Path(directory)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
