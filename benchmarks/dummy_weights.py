"""Dummy weights of a 1B model: ready soon, and no second copy on the way."""

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.goal import Goal

MODEL = "meta-llama/Llama-3.2-1B"
LIMIT_S = 10
LIMIT_RATIO = 1.2

CODE = """
import json, sys
from time import perf_counter
from xpubench.catalog import model
from xpubench.measure.host import reset_host_peak
from xpubench.measure.host import peak_host_bytes
from xpubench.weights.dummy import build_dummy
config = model(sys.argv[1]).native_config()
reset_host_peak()
before, start = peak_host_bytes(), perf_counter()
built = build_dummy(config, dtype="bfloat16", device="cpu", seed=0)
seconds = perf_counter() - start
size = sum(parameter.nbytes for parameter in built.parameters())
print(json.dumps({"seconds": seconds, "peak": peak_host_bytes() - before, "size": size}))
"""


def run() -> Iterator[Goal]:
    """In a process of its own, after its imports (torch, transformers), which take some seconds: the time,
    and the growth of the peak over the weights' size."""
    done = subprocess.run([sys.executable, "-c", CODE, MODEL], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    gb = f"{found['peak'] / 1e9:.3f} GB for {found['size'] / 1e9:.3f} GB"
    yield Goal(f"dummy weights of {MODEL}", found["seconds"], LIMIT_S, " s", "bfloat16, cpu")
    yield Goal("their peak of host memory / their size", found["peak"] / found["size"], LIMIT_RATIO, "", gb)
