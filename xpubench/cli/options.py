"""Flags that commands share, and the way from parsed flags to run specs."""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

from xpubench.errors import UserError
from xpubench.runtimes import registry
from xpubench.runtimes.options import Choose
from xpubench.runtimes.registry import DEFAULT, options_class
from xpubench.spec import (
    DTYPE_BYTES,
    AccuracySpec,
    AccuracyTask,
    Dtype,
    Head,
    Protocol,
    Quantization,
    RunSpec,
    Subject,
    WeightGrid,
    Workload,
)
from xpubench.weights.int4.recipes import checkpoint_recipe

DEVICES = ("xpu", "cuda", "cpu")
DEFAULT_BEAMS = 4
DEFAULT_WARMUP = 3
DEFAULT_NEW_TOKENS = 128
DEFAULT_TASK = "lambada_standard"
AUTO = 0
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
RECIPE_FLAGS = {
    "woq_algo": "algorithm",
    "woq_dtype": "weight_dtype",
    "group_size": "group_size",
    "scale_dtype": "scale_dtype",
    "compute_dtype": "compute_dtype",
    "woq_head": "head",
    "woq_keep": "high_precision",
}
QUANTIZATION_FLAGS = (*RECIPE_FLAGS, "woq_checkpoint_path", "save_model", "output_dir")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """What is loaded."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model-id",
        required=True,
        metavar="MODEL",
        help="a hub id, a local directory, or smollm2-135m, which needs no hub",
    )
    group.add_argument("--sub-model-name", metavar="NAME", help="of the guide's scripts; has no effect")
    group.add_argument("--revision", help="the hub's branch, tag or commit")
    group.add_argument(
        "--dtype", choices=list(DTYPE_BYTES), help="default: float16 on xpu and cuda, bfloat16 on cpu"
    )
    group.add_argument(
        "--dummy-weights", action="store_true", help="random weights: speed without a hub or a tokenizer"
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="run the Python code that comes with the model"
    )
    group.add_argument("--allow-pickle", action="store_true", help="load .bin weights, which can run code")
    group.add_argument(
        "--use-hf-code", nargs="?", const="True", metavar="BOOL", help="of the guide's scripts; has no effect"
    )


def add_runtime_flags(parser: argparse.ArgumentParser, *, ranks: bool) -> None:
    """What runs it, and where; with `ranks` also the flags of the runtimes that share a model."""
    group = parser.add_argument_group("runtime")
    group.add_argument("--device", choices=DEVICES, help="default: xpu if present, else what there is")
    group.add_argument(
        "--runtime",
        action=Choose,
        metavar="NAME[,NAME]",
        help=f"one of {', '.join(registry.listed())} (default: {DEFAULT}); several are compared",
    )
    group.add_argument("--rounds", type=int, metavar="N", help="of several runtimes in turns (default: 3)")
    group.add_argument("--lora", metavar="ADAPTER", help="the directory of a PEFT adapter")
    group.add_argument("--use-static-cache", action="store_true", help="a static KV cache")
    registry.add_flags(parser, ranks=ranks)


def add_recipe_flags(parser: argparse._ActionsContainer) -> None:
    """The INT4 recipe; what is not given is a checkpoint's own, else the guide's."""
    parser.add_argument("--woq_algo", choices=["RTN"], help="rounding to nearest (default: RTN)")
    parser.add_argument(
        "--woq_dtype", choices=get_args(WeightGrid), help="the grid of values (default: int4_fullrange)"
    )
    parser.add_argument("--group_size", type=int, metavar="N", help="values that share a scale (default: 64)")
    parser.add_argument("--scale_dtype", choices=SHORT_DTYPES, help="of the kept scales (default: fp16)")
    parser.add_argument(
        "--compute_dtype", choices=[*SHORT_DTYPES, "int8"], help="of the activations (default: --dtype)"
    )
    parser.add_argument(
        "--woq_head",
        choices=get_args(Head),
        help="token table and output head in INT8, or left as they are (default: by the runtime)",
    )
    parser.add_argument(
        "--woq_keep",
        nargs="+",
        metavar="GLOB",
        help="modules left in high precision, such as '*.down_proj' (default: none)",
    )


def add_quantization_flags(parser: argparse.ArgumentParser) -> None:
    """INT4 weights, quantized when they are loaded or before."""
    group = parser.add_argument_group("INT4 weights")
    group.add_argument("--woq", action="store_true", help="weight-only quantization")
    add_recipe_flags(group)
    group.add_argument("--woq_checkpoint_path", metavar="DIR", help="run what was quantized and saved there")
    group.add_argument("--save_model", action="store_true", help="save the quantized model in --output_dir")
    group.add_argument("--output_dir", type=Path, metavar="DIR", help="where --save_model saves it")


def default_dtype(device: str) -> Dtype:
    """float16 is the guide's; a CPU is slow in it."""
    return "bfloat16" if device == "cpu" else "float16"


def recipe_from(args: argparse.Namespace, runtime: str) -> Quantization:
    """The recipe that the flags name."""
    given = {
        "algorithm": args.woq_algo,
        "weight_dtype": args.woq_dtype,
        "group_size": args.group_size,
        "scale_dtype": SHORT_DTYPES.get(args.scale_dtype),
        "compute_dtype": SHORT_DTYPES.get(args.compute_dtype, args.compute_dtype),
        "high_precision": None if args.woq_keep is None else tuple(args.woq_keep),
        "head": args.woq_head or options_class(runtime).int4_head,
    }
    return Quantization(**{name: value for name, value in given.items() if value is not None})


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """What is generated; flags with several values give every combination."""
    group = parser.add_argument_group("workload (several values: every combination, with one load)")
    group.add_argument("--input-tokens", type=int, nargs="+", metavar="N", help="default: 1024")
    group.add_argument(
        "--max-new-tokens", type=int, nargs="+", metavar="N", help=f"default: {DEFAULT_NEW_TOKENS}"
    )
    group.add_argument(
        "--batch-size",
        type=_batch_size,
        nargs="+",
        default=None,
        metavar="N",
        help="default: 1; for accuracy auto, by the free memory",
    )
    group.add_argument("--num-beams", type=int, nargs="+", metavar="N", help=f"default: {DEFAULT_BEAMS}")
    group.add_argument("--greedy", action="store_true", help="greedy search, whatever --num-beams says")
    group.add_argument(
        "--prompt", metavar="TEXT", help="generate from this text instead of --input-tokens ids"
    )


def add_protocol_flags(parser: argparse.ArgumentParser) -> None:
    """How it is measured."""
    group = parser.add_argument_group("measuring")
    group.add_argument(
        "--num-iter", type=int, default=10, metavar="N", help="iterations, warm-up included (default: 10)"
    )
    group.add_argument(
        "--num-warmup",
        type=int,
        metavar="N",
        help=f"at most so many of them warm up (default: {DEFAULT_WARMUP}, at most half of --num-iter)",
    )
    group.add_argument("--seed", type=int, default=0, help="of the random prompts (default: 0)")


def add_accuracy_flags(parser: argparse.ArgumentParser) -> None:
    """Which tasks, on what."""
    group = parser.add_argument_group("accuracy (with --accuracy-only)")
    group.add_argument(
        "--acc-tasks",
        nargs="+",
        metavar="TASK",
        help=f"lm-eval tasks, groups or tags, lambada_smoke (default: {DEFAULT_TASK})",
    )
    group.add_argument("--acc-iter", type=int, metavar="N", help="the first N items alone")
    group.add_argument(
        "--acc-data",
        metavar="FILE.jsonl",
        help='a local file of {"text": "..."} lines for lambada_standard and lambada_openai',
    )
    group.add_argument("--num-fewshot", type=int, metavar="N", help="examples before each item")


def accuracy_specs_from(args: argparse.Namespace, device: str) -> list[AccuracySpec]:
    """One spec for each task, on the resolved device. UserError for flags that only a latency run has; those
    that the guide's scripts give in both, such as --greedy and --token-latency, have no effect."""
    _refuse(
        args,
        "speaks of latency runs; leave it out with --accuracy-only",
        ("--prompt", "--use-static-cache", "--num-beams", "--input-tokens", "--max-new-tokens"),
    )
    _refuse(args, "measures a latency run; leave it out with --accuracy-only", ("--profile", "--num-warmup"))
    _refuse(
        args, "has no effect on whole texts, which are scored eagerly; leave it out", ("--torch-compile",)
    )
    batch_sizes = args.batch_size or [AUTO]
    if len(batch_sizes) != 1:
        raise UserError("--accuracy-only takes one --batch-size")
    names = [name for names in args.acc_tasks or [DEFAULT_TASK] for name in names.split(",") if name.strip()]
    if not names:
        raise UserError("--acc-tasks names no task; give one such as lambada_smoke")
    return [
        AccuracySpec(
            subject=_subject(args, device),
            task=AccuracyTask(
                name=name,
                limit=args.acc_iter,
                num_fewshot=args.num_fewshot,
                batch_size=batch_sizes[0],
                data=args.acc_data,
            ),
        )
        for name in dict.fromkeys(name.strip() for name in names)
    ]


def specs_from(args: argparse.Namespace, device: str, beside: Sequence[str] = ()) -> list[RunSpec]:
    """One spec for each combination of the flags with several values, on the resolved device. The flags may
    also be those of the runtimes that are run `beside` this one."""
    _refuse(
        args,
        "is of accuracy runs; give --accuracy-only too, or leave it out",
        ("--acc-tasks", "--acc-iter", "--acc-data", "--num-fewshot"),
    )
    subject = _subject(args, device, beside)
    protocol = Protocol(num_iter=args.num_iter, num_warmup=_num_warmup(args), seed=args.seed)
    if args.prompt is not None and args.input_tokens is not None:
        raise UserError("--prompt sets the length by itself; leave out either --prompt or --input-tokens")
    if args.prompt is not None and args.dummy_weights:
        raise UserError("--dummy-weights come without a tokenizer; leave out --prompt")
    lengths: list[Any] = [None] if args.prompt is not None else _distinct(args.input_tokens or [1024])
    return [
        RunSpec(
            subject=subject,
            workload=Workload(
                input_tokens=length,
                new_tokens=new_tokens,
                batch_size=batch_size,
                num_beams=num_beams,
                cache="static" if args.use_static_cache else "dynamic",
                prompt=args.prompt,
            ),
            protocol=protocol,
        )
        for batch_size, num_beams, length, new_tokens in product(
            _batch_sizes(args), _beams(args), lengths, _distinct(args.max_new_tokens or [DEFAULT_NEW_TOKENS])
        )
    ]


def _refuse(args: argparse.Namespace, why: str, flags: tuple[str, ...]) -> None:
    for flag in flags:
        if getattr(args, flag.strip("-").replace("-", "_")) not in (None, False):
            raise UserError(f"{flag} {why}")


def runtime_names(args: argparse.Namespace) -> list[str]:
    """The runtimes that were asked for, each once; UserError for an unknown one."""
    if args.runtime is None:
        return [DEFAULT]
    names = list(dict.fromkeys(name.strip() for name in args.runtime.split(",") if name.strip()))
    if not names:
        raise UserError(f"--runtime names none; there are {', '.join(registry.listed())}")
    for name in names:
        options_class(name)
    return names


def _subject(args: argparse.Namespace, device: str, beside: Sequence[str] = ()) -> Subject:
    runtime = _runtime(args)
    return Subject(
        model=args.model_id,
        device=device,
        dtype=args.dtype or default_dtype(device),
        options=registry.options_from(args, runtime, device, beside),
        revision=args.revision,
        weights="dummy" if args.dummy_weights else "pretrained",
        trust_remote_code=args.trust_remote_code,
        allow_pickle=args.allow_pickle,
        lora=_adapter(args),
        quantization=_quantization(args, runtime),
        # Only the command that runs over ranks has their number.
        tp_size=getattr(args, "tp_size", None) or 1,
    )


def _runtime(args: argparse.Namespace) -> str:
    name, *others = runtime_names(args)
    if others:
        raise UserError("several runtimes are held together by `xpubench generate` alone; name one --runtime")
    if hasattr(args, "tp_size"):
        return registry.sharded(name)
    if options_class(name).shards is not None:
        raise UserError(f"{name} runs over ranks: mpirun -np 2 python run_generation_with_deepspeed.py")
    return name


def _adapter(args: argparse.Namespace) -> str | None:
    if args.lora is not None and args.dummy_weights:
        raise UserError("--lora changes weights, which --dummy-weights have none of; leave one of them out")
    if args.lora is not None and args.woq:
        raise UserError("--lora changes float weights; merge it first, or leave out --woq")
    return None if args.lora is None else str(Path(args.lora).expanduser())


def _quantization(args: argparse.Namespace, runtime: str) -> Quantization | None:
    if not args.woq:
        lonely = [name for name in QUANTIZATION_FLAGS if getattr(args, name)]
        if lonely:
            raise UserError(f"--{lonely[0]} is of a quantized model; give --woq too, or leave it out")
        return None
    method = options_class(runtime).int4_method
    if method is None:
        raise UserError(options_class(runtime).int4_refusal)
    if args.save_model != (args.output_dir is not None):
        raise UserError("--save_model and --output_dir DIR belong together")
    if args.save_model and args.woq_checkpoint_path:
        raise UserError("--woq_checkpoint_path names a saved model; leave out --save_model")
    recipe = recipe_from(args, runtime)
    if args.woq_checkpoint_path is None:
        return recipe
    return checkpoint_recipe(
        Path(args.woq_checkpoint_path), recipe, args.model_id, method, given=_given_recipe(args)
    )


def _given_recipe(args: argparse.Namespace) -> set[str]:
    """The recipe's fields that flags set."""
    return {field for flag, field in RECIPE_FLAGS.items() if getattr(args, flag) is not None}


def _batch_size(text: str) -> int:
    if text == "auto":
        return AUTO
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, or auto, not {text!r}")
    return int(text)


def _batch_sizes(args: argparse.Namespace) -> list[int]:
    sizes = _distinct(args.batch_size or [1])
    if AUTO in sizes:
        raise UserError("--batch-size auto is for --accuracy-only; a latency needs a number")
    return sizes


def _beams(args: argparse.Namespace) -> list[int]:
    # As in the guide's script, --greedy wins.
    return [1] if args.greedy else _distinct(args.num_beams or [DEFAULT_BEAMS])


def _num_warmup(args: argparse.Namespace) -> int:
    given: int | None = args.num_warmup
    return min(DEFAULT_WARMUP, max(args.num_iter, 0) // 2) if given is None else given


def _distinct(values: list[int]) -> list[int]:
    return list(dict.fromkeys(values))
