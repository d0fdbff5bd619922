"""Convert a checkpoint to an OpenVINO IR, with its tokenizer and the recipe beside it."""

import argparse
import sys
from pathlib import Path
from typing import get_args

import msgspec

from xpubench.runtimes.openvino.options import WeightFormat
from xpubench.runtimes.openvino.recipe import ExportRecipe


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("model", metavar="MODEL", help="a hub id, a local directory, or smollm2-135m")
    parser.add_argument("out", metavar="OUT", type=Path, help="the directory to write")
    parser.add_argument(
        "--weight-format",
        choices=get_args(WeightFormat),
        help="default: fp16, or int8 above a billion parameters, as in Optimum",
    )
    symmetry = parser.add_mutually_exclusive_group()
    symmetry.add_argument("--sym", action="store_true", default=None, help="symmetric int8 or int4")
    symmetry.add_argument("--asym", action="store_false", dest="sym", default=None, help="asymmetric")
    parser.add_argument("--ratio", type=float, metavar="R", help="the share of int4 layers, others int8")
    parser.add_argument(
        "--group-size", type=int, metavar="G", help="int4 values that share a scale; -1: a whole channel"
    )
    parser.add_argument("--awq", action="store_true", help="activation-aware scales (needs --dataset)")
    parser.add_argument("--scale-estimation", action="store_true", help="NNCF's (needs --dataset)")
    parser.add_argument("--gptq", action="store_true", help="GPTQ rounding (needs --dataset)")
    parser.add_argument(
        "--dataset",
        metavar="D|FILE",
        help="a file with one text in each line, or a dataset that Optimum knows",
    )
    parser.add_argument("--lora", metavar="ADAPTER", help="a PEFT adapter's directory, merged before")
    parser.add_argument("--revision", help="the hub's branch, tag or commit")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the model's own Python code")
    parser.add_argument("--allow-pickle", action="store_true", help="load .bin weights, which can run code")


def run(args: argparse.Namespace) -> int:
    """Exports, and prints the directory."""
    from xpubench.process.output import quiet

    fields = {name: getattr(args, name) for name in ExportRecipe.__struct_fields__}
    recipe = ExportRecipe(**fields | {"weight_format": args.weight_format or "fp16"})
    quiet()
    from xpubench.runtimes.openvino.export import default_format, export

    if args.weight_format is None:
        chosen = default_format(recipe)
        reason = ", Optimum's default above a billion parameters" if chosen == "int8" else ""
        _say(f"no --weight-format given: {chosen}{reason}")
        recipe = msgspec.structs.replace(recipe, weight_format=chosen)
    print(export(recipe, args.out.expanduser(), _say))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
