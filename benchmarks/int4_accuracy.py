"""What INT4 by rounding, AutoRound and AWQ costs SmolLM2-135M in LAMBADA accuracy, each against float32.

    python -m benchmarks.int4_accuracy PASSAGES.jsonl TEXTS.txt DIRECTORY [--items 1000]

The texts calibrate AutoRound and AWQ, whose checkpoints are kept in the directory. On a CPU auto-round's layers
unpack their weights at each pass (14 s a pass of this model), so that the weights that they stand for are
written as a float32 checkpoint first, and that is scored.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
CALIBRATION = ("--nsamples", "16", "--seqlen", "128")
# The package's default is 200; each takes 25 s on two cores.
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
        results = args.directory / "results" / name
        data = ("--accuracy-only", "--acc-tasks", "lambada_openai", "--acc-data", args.passages)
        more = ("--acc-iter", args.items, "--results-dir", results, "--device", "cpu")
        _xpubench("generate", "-m", model, *data, *more, *flags)
        (record,) = results.glob("*[0-9a-f].json")
        return record

    base = scored("float32", MODEL, "--dtype", "float32")
    found = {"RTN": scored("rtn", MODEL, *ROUNDED)}
    for name, flags in ALGORITHMS.items():
        checkpoint, plain = args.directory / name, args.directory / f"{name}-float32"
        if not checkpoint.exists():
            _xpubench("quantize", MODEL, checkpoint, "--algorithm", name, "--dataset", args.texts, *flags)
        if not plain.exists():
            dequantize(checkpoint, plain)
        found[name] = scored(name, plain, "--dtype", "float32")
    for name, record in found.items():
        print(f"{name}:", flush=True)
        _xpubench("compare", base, record, codes=(0, 1, 3))
    return 0


def _xpubench(*words: object, codes: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run([sys.executable, "-m", "xpubench", *map(str, words)])
    if done.returncode not in codes:
        raise SystemExit(f"xpubench {words[0]} ended with {done.returncode}")


def dequantize(checkpoint: Path, out: Path) -> None:
    """Writes the model with the float32 weights that its quantized layers stand for. A layer of whichever
    library gives them as its product with the identity matrix."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    quantized = [(name, one) for name, one in model.named_modules() if hasattr(one, "qweight")]
    with torch.inference_mode():
        for name, layer in quantized:
            identity = torch.eye(layer.infeatures)
            weight = layer(identity).T.float().contiguous()
            plain = torch.nn.Linear(*reversed(weight.shape), bias=False)
            plain.weight = torch.nn.Parameter(weight)
            model.set_submodule(name, plain)
    print(f"{out}: {len(quantized)} layers in float32", flush=True)
    model = model.float()
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(out)


if __name__ == "__main__":
    sys.exit(main())
