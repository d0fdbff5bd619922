"""Convert a checkpoint to an OpenVINO IR, with its tokenizer and the recipe beside it. The flags of
optimum-cli export openvino mean the same here."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from xpubench.errors import UserError
from xpubench.files import expanded
from xpubench.progress import log_line
from xpubench.runtimes.openvino.options import WeightFormat
from xpubench.runtimes.openvino.recipe import Backup, ExportRecipe, Fallback, Sensitivity

MODEL_TASK = "text-generation-with-past"
# The flags of optimum-cli that have no meaning here, with the reason.
REFUSED = {
    "--cache_dir": "set the variable HF_HUB_CACHE to the cache of the hub's files",
    "--quant-mode": "activations are not quantized; give --weight-format",
    "--smooth-quant-alpha": "activations are not quantized",
    "--quantization-statistics-path": "the statistics of a calibration are not kept",
    "--disable-stateful": "the runtimes need the cache as a state of the model",
    "--disable-convert-tokenizer": "a tokenizer that OpenVINO cannot convert stays transformers' own",
    "--pad-token-id": "the export of a language model needs no padding token",
    "--variant": "only checkpoints with one set of weights are supported",
    "--model-kwargs": "the export passes no arguments to the model",
    "--subfolder": "give the directory that holds the checkpoint",
}
# The formats of optimum-cli whose export was never tried here.
UNTRIED_FORMATS = ("mxfp4", "nf4", "cb4")


class Refuse(argparse.Action):
    """An action that refuses its flag; its `const` is the reason."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        raise UserError(f"{option_string} is not supported: {self.const}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("place", nargs="?", metavar="MODEL", help="a hub id, a directory, or smollm2-135m")
    parser.add_argument("out", metavar="OUT", type=Path, help="the directory to write")
    parser.add_argument("-m", "--model", metavar="MODEL", help="the model, as optimum-cli takes it")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--weight-format",
        type=_weight_format,
        choices=get_args(WeightFormat),
        help="default: fp16, or int8 above a billion parameters, as in Optimum; int4 without further flags "
        "has the settings that Optimum keeps for a known model",
    )
    weights.add_argument(
        "--int8",
        action="store_const",
        const="int8",
        dest="weight_format",
        help="as --weight-format int8, as earlier versions of optimum-cli have it",
    )
    symmetry = parser.add_mutually_exclusive_group()
    symmetry.add_argument("--sym", action="store_true", default=None, help="symmetric int8 or int4")
    symmetry.add_argument("--asym", action="store_false", dest="sym", default=None, help="asymmetric")
    parser.add_argument(
        "--ratio", type=float, metavar="R", help="the share of int4 layers; the others are int8"
    )
    parser.add_argument(
        "--group-size", type=int, metavar="G", help="int4 values that share a scale; -1: a whole channel"
    )
    parser.add_argument(
        "--group-size-fallback",
        choices=get_args(Fallback),
        help="what to do with matrices that G does not divide",
    )
    parser.add_argument(
        "--backup-precision", choices=get_args(Backup), help="precision of the layers that do not become int4"
    )
    parser.add_argument(
        "--all-layers", action="store_true", help="int4 for the embeddings and the output head too"
    )
    parser.add_argument("--awq", action="store_true", help="AWQ (without --dataset, from the weights alone)")
    parser.add_argument("--scale-estimation", action="store_true", help="NNCF's (needs --dataset)")
    parser.add_argument("--gptq", action="store_true", help="GPTQ rounding (needs --dataset)")
    parser.add_argument("--lora-correction", action="store_true", help="NNCF's (needs --dataset)")
    parser.add_argument(
        "--sensitivity-metric",
        choices=get_args(Sensitivity),
        help="which layers stay int8 for R below 1",
    )
    parser.add_argument(
        "--dataset",
        metavar="D|FILE",
        help="a file with one text in each line, or a dataset that Optimum knows",
    )
    parser.add_argument(
        "--num-samples", type=int, metavar="N", help="use at most this many texts of the dataset"
    )
    parser.add_argument(
        "--lora", metavar="ADAPTER", help="directory of a PEFT adapter to merge before the export"
    )
    parser.add_argument("--revision", help="the hub's branch, tag or commit")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the model's own Python code")
    parser.add_argument("--allow-pickle", action="store_true", help="load .bin weights, which can run code")
    parser.add_argument("--task", default="auto", metavar="T", help=f"{MODEL_TASK}, which is the default")
    parser.add_argument("--library", default="transformers", help=argparse.SUPPRESS)
    parser.add_argument("--framework", default="pt", help=argparse.SUPPRESS)
    for name, reason in REFUSED.items():
        parser.add_argument(
            name, action=Refuse, nargs="?", const=reason, dest=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def run(args: argparse.Namespace) -> int:
    """Exports, and prints the directory."""
    from xpubench.process.output import quiet

    recipe = _recipe(args)
    quiet()
    from xpubench.runtimes.openvino.export import default_format, export

    if args.weight_format is None:
        chosen = default_format(recipe)
        reason = ", Optimum's default above a billion parameters" if chosen == "int8" else ""
        log_line(f"no --weight-format given: {chosen}{reason}")
        recipe = msgspec.structs.replace(recipe, weight_format=chosen)
    print(export(recipe, expanded(args.out), log_line))
    return 0


def _weight_format(text: str) -> str:
    if text in UNTRIED_FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text} is not supported: its export was never tested here; give int4, or run optimum-cli's IR"
        )
    return text


def _recipe(args: argparse.Namespace) -> ExportRecipe:
    """The recipe that the flags describe, with fp16 where they name no format."""
    named = [one for one in (args.model, args.place) if one is not None]
    if len(named) != 1:
        problem = "names no model" if not named else "names two models"
        raise UserError(f"the command line {problem}: xpubench export MODEL OUT, or -m MODEL OUT")
    for flag, value, only in (
        ("--task", args.task, ("auto", MODEL_TASK)),
        ("--library", args.library, ("transformers",)),
        ("--framework", args.framework, ("pt",)),
    ):
        if value not in only:
            raise UserError(f"{flag} {value} is not supported; language models need {' or '.join(only)}")
    fields: dict[str, Any] = {name: getattr(args, name) for name in ExportRecipe.flags()}
    return ExportRecipe(**fields | {"model": named[0], "weight_format": args.weight_format or "fp16"})
