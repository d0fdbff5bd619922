"""What INT4 by rounding, AutoRound and AWQ costs SmolLM2-135M in LAMBADA accuracy, each against float32.

    python -m benchmarks.int4_accuracy PASSAGES.jsonl TEXTS.txt DIRECTORY [--items 1000]

The texts calibrate AutoRound and AWQ, whose checkpoints are kept in the directory.
"""

import argparse
import subprocess
import sys
from pathlib import Path

MODEL = "smollm2-135m"
# auto-round's defaults are 200 iterations, of 25 s each on two cores, and 128 samples of 2,048 tokens.
CALIBRATION = ("--nsamples", "16", "--seqlen", "128")
ALGORITHMS = {"autoround": (*CALIBRATION, "--iters", "20"), "awq": CALIBRATION}
ROUNDED = ("--dtype", "bfloat16", "--woq", "--woq_head", "high")


def main() -> int:
    """Scores each and prints its comparison with float32."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int4_accuracy", description=__doc__)
    parser.add_argument("passages", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--items", type=int, default=1000)
    args = parser.parse_args()

    def scored(name: str, model: str | Path, *flags: str) -> Path:
        """The record of the model's accuracy."""
        results: Path = args.directory / "results" / name
        data = ("--accuracy-only", "--acc-tasks", "lambada_openai", "--acc-data", args.passages)
        more = ("--acc-iter", args.items, "--results-dir", results, "--device", "cpu")
        _xpubench("generate", "-m", model, *data, *more, *flags)
        (record,) = results.glob("*[0-9a-f].json")
        return record

    base = scored("float32", MODEL, "--dtype", "float32")
    found = {"RTN": scored("rtn", MODEL, *ROUNDED)}
    for name, flags in ALGORITHMS.items():
        checkpoint = args.directory / name
        if not checkpoint.exists():
            _xpubench("quantize", MODEL, checkpoint, "--algorithm", name, "--dataset", args.texts, *flags)
        found[name] = scored(name, checkpoint, "--dtype", "float32")
    for name, record in found.items():
        print(f"{name}:", flush=True)
        _xpubench("compare", base, record, codes=(0, 1, 3))
    return 0


def _xpubench(*words: object, codes: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run([sys.executable, "-m", "xpubench", *map(str, words)])
    if done.returncode not in codes:
        raise SystemExit(f"xpubench {words[0]} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
