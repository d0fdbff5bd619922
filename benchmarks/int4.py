"""INT4 of a 1B model on the CPU: its size, the memory of making it, and its decoding beside bfloat16."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.goal import Goal
from xpubench.catalog import model
from xpubench.prompts import random_prompt
from xpubench.spec import Quantization, Subject, Workload

MODEL = "meta-llama/Llama-3.2-1B"
SIZE_LIMIT, PEAK_LIMIT, TIME_LIMIT = 0.32, 0.6, 0.5
ROUNDS = 5
WORKLOAD = Workload(input_tokens=32, new_tokens=16)


def run() -> Iterator[Goal]:
    """Size and peak are shares of the float16 weights; the time is INT4's next token / bfloat16's, both
    loaded in one process and generating in turns."""
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "Llama-3.2-1B", Path(directory) / "int4"
        _write_float16(source)
        command = [sys.executable, "-m", "xpubench", "quantize", str(source), str(target), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
    whole = found["float16_bytes"]
    gb = f"{found['file_bytes'] / 1e9:.3f} GB for {whole / 1e9:.3f} GB"
    yield Goal(f"files of {MODEL} in INT4 / in float16", found["float16_ratio"], SIZE_LIMIT, "", gb)
    peak = found["peak_host_bytes"]
    detail = f"{peak / 1e9:.3f} GB with torch's own; {found['quantize_s']:.1f} s"
    yield Goal(
        "peak host memory of quantizing it / its float16 weights", peak / whole, PEAK_LIMIT, "", detail
    )
    yield from _decoding(whole)


def _write_float16(directory: Path) -> None:
    """A checkpoint of random weights, a file for each of them."""
    import torch
    from safetensors.torch import save_file

    from xpubench.weights.dummy import dummy_tensors
    from xpubench.weights.empty import empty_model

    directory.mkdir()
    config = model(MODEL).native_config()
    (directory / "config.json").write_text(json.dumps(config))
    weight_map: dict[str, str] = {}
    for index, (name, tensor) in enumerate(
        dummy_tensors(empty_model(config, torch.float16), device="cpu", seed=0)
    ):
        weight_map[name] = f"model-{index:04}.safetensors"
        save_file({name: tensor}, directory / weight_map[name])
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _decoding(whole: int) -> Iterator[Goal]:
    from xpubench.runtimes.pytorch.runtime import PyTorchRuntime

    sides = {}
    for name, recipe in (("int4", Quantization()), ("bfloat16", None)):
        subject = Subject(model=MODEL, device="cpu", dtype="bfloat16", weights="dummy", quantization=recipe)
        sides[name] = PyTorchRuntime.load(subject)
    bytes_int4 = sides["int4"].describe().weight_bytes
    yield Goal(
        f"weights of {MODEL} in memory, INT4 in the kernels' form / in float16",
        bytes_int4 / whole,
        SIZE_LIMIT,
        "",
        f"{bytes_int4 / 1e9:.3f} GB",
    )
    firsts: dict[str, list[float]] = {name: [] for name in sides}
    nexts: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(ROUNDS + 1):
        ids = random_prompt(100_000, frozenset(), batch_size=1, length=32, seed=0, index=index)
        for name in sorted(sides, reverse=bool(index % 2)):
            times = sides[name].generate(ids, WORKLOAD, "every_token").times.iteration()
            if index and times.first_token_ns is not None and times.next_token_ns is not None:
                firsts[name].append(times.first_token_ns / 1e6)
                nexts[name].append(float(np.median(times.next_token_ns)) / 1e6)
    int4_ms, bfloat16_ms = median(nexts["int4"]), median(nexts["bfloat16"])
    first = f"first token {median(firsts['int4']):.0f} and {median(firsts['bfloat16']):.0f} ms"
    read = {name: side.describe().step_weight_bytes / 1e9 for name, side in sides.items()}
    yield Goal(
        "its next token in INT4 / in bfloat16",
        int4_ms / bfloat16_ms,
        TIME_LIMIT,
        "",
        f"{int4_ms:.1f} ms reading {read['int4']:.2f} GB and {bfloat16_ms:.1f} ms reading "
        f"{read['bfloat16']:.2f} GB; {first}",
    )
