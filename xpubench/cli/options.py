"""Flags that commands share, and the way from parsed flags to run specs."""

import argparse
import os
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, cast, get_args

from xpubench.errors import UserError
from xpubench.runtimes import registry
from xpubench.runtimes.options import Choose, default_dtype
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
    check_group_size,
)
from xpubench.weights.int4.recipes import checkpoint_recipe

DEVICES = ("xpu", "cuda", "cpu")
DEFAULT_BEAMS = 4
DEFAULT_WARMUP = 3
DEFAULT_NEW_TOKENS = 128
# More shapes in one command are a mistake, such as one list of values too many.
MOST_RUNS = 10_000
DEFAULT_TASK = "lambada_standard"
AUTO = 0
NO_EFFECT = "accepted for the guide's scripts; has no effect"
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# Flags that latency runs alone take: what they generate and how it is measured, how steps of one token are
# computed, and what is looked at besides; then those that accuracy runs alone take.
LATENCY_FLAGS = (
    *("--prompt", "--use-static-cache", "--num-beams", "--input-tokens", "--max-new-tokens"),
    *("--profile", "--num-warmup", "--until-ci", "--loads"),
)
STEP_FLAGS = ("--torch-compile", "--backend", "--no-onednn-decode")
OBSERVING_FLAGS = ("--explain", "--depths", "--max-kl", "--min-agreement")
ACCURACY_FLAGS = ("--acc-tasks", "--acc-iter", "--acc-data", "--num-fewshot", "--until-decided")
RECIPE_FLAGS = {
    "woq_algo": "algorithm",
    "woq_dtype": "weight_dtype",
    "group_size": "group_size",
    "scale_dtype": "scale_dtype",
    "compute_dtype": "compute_dtype",
    "woq_head": "head",
    "woq_keep": "high_precision",
}


def add_loading_flags(parser: argparse._ActionsContainer) -> None:
    """The flags of where weights come from and what they may run."""
    parser.add_argument("--revision", help="the hub's branch, tag or commit")
    note = "run the Python code that comes with the model"
    parser.add_argument("--trust-remote-code", action="store_true", help=note)
    parser.add_argument("--allow-pickle", action="store_true", help="load .bin weights, which can run code")


def add_model_flags(parser: argparse.ArgumentParser, *, ranks: bool) -> None:
    """The flags of the model and the runtime; with `ranks` also those of the runtimes that share a model."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    note = "a hub id, a local directory, or smollm2-135m, which needs no hub"
    add("-m", "--model-id", type=model_name, required=True, metavar="MODEL", help=note)
    add("--sub-model-name", metavar="NAME", help=NO_EFFECT)
    add("--dtype", choices=list(DTYPE_BYTES), help="default: float16 on xpu and cuda, bfloat16 on cpu")
    add("--dummy-weights", action="store_true", help="random weights: speed without a hub or a tokenizer")
    note = "transformers' own code for the model, as always without --trust-remote-code"
    add("--use-hf-code", "--use_hf_code", nargs="?", const="True", metavar="BOOL", help=note)
    add_loading_flags(group)
    add = parser.add_argument_group("runtime").add_argument
    add("--device", choices=DEVICES, help="default: xpu if present, else cuda, else cpu")
    note = f"one of {', '.join(registry.listed())} (default: {DEFAULT}); several are compared"
    add("--runtime", action=Choose, metavar="NAME[,NAME]", help=note)
    add("--rounds", type=int, metavar="N", help="how often several runtimes take turns (default: 3)")
    add("--lora", metavar="ADAPTER", help="the directory of a PEFT adapter")
    add("--use-static-cache", action="store_true", help="a static KV cache")
    registry.add_flags(parser, ranks=ranks)


def add_recipe_flags(parser: argparse._ActionsContainer) -> None:
    """The flags of the INT4 recipe. A recipe that is not given is the checkpoint's own, else the guide's."""
    add = parser.add_argument
    add("--woq_algo", choices=["RTN"], help="rounding to nearest (default: RTN)")
    add("--woq_dtype", choices=get_args(WeightGrid), help="the grid of values (default: int4_fullrange)")
    add("--group_size", type=int, metavar="N", help="how many values share a scale (default: 64)")
    add("--scale_dtype", choices=SHORT_DTYPES, help="the dtype of the saved scales (default: fp16)")
    note = "the dtype of the activations (default: --dtype)"
    add("--compute_dtype", choices=[*SHORT_DTYPES, "int8"], help=note)
    note = "token table and output head in INT8, or in the model's precision (default: by the runtime)"
    add("--woq_head", choices=get_args(Head), help=note)
    note = "modules left in high precision, such as '*.down_proj' (default: none)"
    add("--woq_keep", nargs="+", metavar="GLOB", help=note)


def add_quantization_switch(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The flags of quantization when the weights are loaded; their group in the help."""
    group = parser.add_argument_group("INT4 weights")
    group.add_argument("--woq", action="store_true", help="weight-only quantization")
    add_recipe_flags(group)
    return group


def add_quantization_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of INT4 weights, quantized when they are loaded or before."""
    add = add_quantization_switch(parser).add_argument
    add("--woq_checkpoint_path", metavar="DIR", help="run the quantized model that is saved there")
    add("--save_model", action="store_true", help="quantize, and save the model in --output_dir")
    add("--output_dir", type=Path, metavar="DIR", help="where --save_model saves it (default: ./)")


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the workload, of its measurement, and of accuracy tasks."""
    title = "workload (several values: every combination, with one load)"
    add = parser.add_argument_group(title).add_argument
    add("--input-tokens", type=int, nargs="+", metavar="N", help="default: 1024")
    add("--max-new-tokens", type=int, nargs="+", metavar="N", help=f"default: {DEFAULT_NEW_TOKENS}")
    note = "default: 1; for accuracy auto, by the free memory"
    add("--batch-size", "--batch_size", type=_batch_size, nargs="+", metavar="N", help=note)
    add("--num-beams", type=int, nargs="+", metavar="N", help=f"default: {DEFAULT_BEAMS}")
    add("--greedy", action="store_true", help="greedy search, whatever --num-beams says")
    add("--prompt", metavar="TEXT", help="generate from this text instead of --input-tokens ids")
    add = parser.add_argument_group("measuring").add_argument
    add("--num-iter", type=int, default=10, metavar="N", help="iterations, warm-up included (default: 10)")
    note = f"the most that warm up (default: {DEFAULT_WARMUP}, at most half of --num-iter)"
    add("--num-warmup", type=int, metavar="N", help=note)
    note = "end when the next token latency is known within so much; --num-iter is the most"
    add("--until-ci", type=_percent, metavar="PERCENT", help=note)
    note = "load the model N times, and divide the measured iterations over the loads (default: 1)"
    add("--loads", type=int, metavar="N", help=note)
    add("--seed", type=int, default=0, help="the seed of the random prompts (default: 0)")
    add = parser.add_argument_group("accuracy (with --accuracy-only)").add_argument
    note = f"lm-eval tasks, groups or tags, lambada_smoke (default: {DEFAULT_TASK})"
    add("--acc-tasks", nargs="+", metavar="TASK", help=note)
    add("--acc-iter", type=_item_limit, metavar="N", help="only the first N items (default: -1, all)")
    note = 'a local file of {"text": "..."} lines for lambada_standard and lambada_openai'
    add("--acc-data", metavar="FILE.jsonl", help=note)
    add("--num-fewshot", type=int, metavar="N", help="examples before each item")
    note = "end when the items so far, in an order drawn by --seed, decide against --reference"
    add("--until-decided", action="store_true", help=note)


def recipe_from(args: argparse.Namespace, runtime: str) -> Quantization:
    """The recipe that the flags name. UserError for a group size that no kernel takes."""
    given: dict[str, Any] = {field: getattr(args, flag) for flag, field in RECIPE_FLAGS.items()}
    for field in ("scale_dtype", "compute_dtype"):
        given[field] = SHORT_DTYPES.get(given[field], given[field])
    given["high_precision"] = tuple(given["high_precision"] or ())
    given["head"] = given["head"] or options_class(runtime).int4_head
    if given["group_size"] is not None:
        check_group_size(given["group_size"])
    return Quantization(**{name: value for name, value in given.items() if value is not None})


def accuracy_specs_from(args: argparse.Namespace, device: str) -> list[AccuracySpec]:
    """One spec for each task, on the resolved device. UserError for flags that only a latency run has; those
    that the guide's scripts give in both, such as --greedy and --token-latency, have no effect."""
    _refuse(args, "is for latency runs; leave it out with --accuracy-only", *LATENCY_FLAGS)
    _refuse(args, "has no effect on whole texts, which are scored eagerly; leave it out", *STEP_FLAGS)
    batch_sizes = args.batch_size or [AUTO]
    if len(batch_sizes) != 1:
        raise UserError("--accuracy-only takes one --batch-size")
    given = [name.strip() for names in args.acc_tasks or [DEFAULT_TASK] for name in names.split(",")]
    names = list(dict.fromkeys(name for name in given if name))
    if not names:
        raise UserError("--acc-tasks names no task; give one such as lambada_smoke")
    subject = _subject(args, device)
    shared = {"num_fewshot": args.num_fewshot, "batch_size": batch_sizes[0], "data": args.acc_data}
    if args.until_decided:
        if len(names) > 1:
            raise UserError("--until-decided has one reference; give it one of --acc-tasks at a time")
        shared |= {"until_decided": True, "seed": args.seed}
    tasks = [AccuracyTask(name=name, limit=args.acc_iter, **shared) for name in names]
    return [AccuracySpec(subject=subject, task=task) for task in tasks]


def specs_from(args: argparse.Namespace, device: str, beside: Sequence[str] = ()) -> list[RunSpec]:
    """One spec for each combination of the flags with several values, on the resolved device. The flags may
    also be those of the runtimes that are run `beside` this one."""
    _refuse(args, "is for accuracy runs; give --accuracy-only too, or leave it out", *ACCURACY_FLAGS)
    subject = _subject(args, device, beside)
    warmup = args.num_warmup
    if warmup is None:
        warmup = min(DEFAULT_WARMUP, max(args.num_iter, 0) // 2)
    protocol = Protocol(
        num_iter=args.num_iter,
        num_warmup=warmup,
        seed=args.seed,
        until_ci=args.until_ci,
        loads=1 if args.loads is None else args.loads,
    )
    if args.prompt is not None and args.input_tokens is not None:
        raise UserError("--prompt has a length of its own; leave out either --prompt or --input-tokens")
    if args.prompt is not None and args.dummy_weights:
        raise UserError("--dummy-weights come without a tokenizer; leave out --prompt")
    batch_sizes = args.batch_size or [1]
    if AUTO in batch_sizes:
        raise UserError("--batch-size auto is for --accuracy-only; a latency needs a number")
    # As in the guide's script, --greedy wins.
    beams = [1] if args.greedy else args.num_beams or [DEFAULT_BEAMS]
    lengths = [None] if args.prompt is not None else args.input_tokens or [1024]
    new_tokens = args.max_new_tokens or [DEFAULT_NEW_TOKENS]
    count = prod(map(len, (batch_sizes, beams, lengths, new_tokens)))
    if count > MOST_RUNS:
        raise UserError(f"the flags' values give {count} runs, and at most {MOST_RUNS} are taken; name fewer")
    workloads = [
        Workload(
            input_tokens=length,
            new_tokens=new,
            batch_size=batch_size,
            num_beams=num_beams,
            cache="static" if args.use_static_cache else "dynamic",
            prompt=args.prompt,
        )
        for batch_size, num_beams, length, new in product(batch_sizes, beams, lengths, new_tokens)
    ]
    return [RunSpec(subject=subject, workload=one, protocol=protocol) for one in dict.fromkeys(workloads)]


def keep_to_kind(args: argparse.Namespace, own: argparse.Namespace) -> None:
    """Sets the flags of the other kind of run alone, latency or accuracy, to their values in `own`."""
    # An accuracy run has a reference with --until-decided alone.
    reference = ("--reference",)
    of_latency = (*LATENCY_FLAGS, *STEP_FLAGS, *OBSERVING_FLAGS, *(() if args.until_decided else reference))
    of_accuracy = (*ACCURACY_FLAGS, *(reference if args.until_decided else ()))
    for name in map(_dest, of_latency if args.accuracy_only else of_accuracy):
        setattr(args, name, getattr(own, name))


def _refuse(args: argparse.Namespace, why: str, *flags: str) -> None:
    for flag in flags:
        if getattr(args, _dest(flag)) not in (None, False):
            raise UserError(f"{flag} {why}")


def _dest(flag: str) -> str:
    """The attribute of the parsed arguments that holds a flag's value."""
    return flag.strip("-").replace("-", "_")


def runtime_names(args: argparse.Namespace) -> list[str]:
    """The runtimes that were asked for, each once; UserError for an unknown one."""
    given = DEFAULT if args.runtime is None else args.runtime
    names = list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names:
        raise UserError(f"--runtime names none; there are {', '.join(registry.listed())}")
    for name in names:
        options_class(name)
    return names


def _subject(args: argparse.Namespace, device: str, beside: Sequence[str] = ()) -> Subject:
    runtime = _runtime(args)
    device = options_class(runtime).device_kind(args, device)
    if args.lora is not None and args.dummy_weights:
        raise UserError("--lora changes weights, which --dummy-weights have none of; leave one of them out")
    quantization = _quantization(args, runtime)
    if args.lora is not None and quantization is not None:
        raise UserError("--lora changes float weights; merge it first, or leave out --woq")
    if args.trust_remote_code and args.use_hf_code not in (None, "False"):
        raise UserError(
            "--use-hf-code wants transformers' own code and --trust-remote-code the model's; leave one out"
        )
    needed = options_class(runtime).int4_dtypes.get(device) if quantization is not None else None
    return Subject(
        model=args.model_id,
        device=device,
        dtype=args.dtype or cast("Dtype | None", needed) or default_dtype(device),
        options=registry.options_from(args, runtime, device, beside),
        revision=args.revision,
        weights="dummy" if args.dummy_weights else "pretrained",
        trust_remote_code=args.trust_remote_code,
        allow_pickle=args.allow_pickle,
        lora=None if args.lora is None else str(Path(args.lora).expanduser()),
        quantization=quantization,
        # Only the command that runs over ranks knows their number.
        tp_size=getattr(args, "tp_size", None) or 1,
    )


def _runtime(args: argparse.Namespace) -> str:
    name, *others = runtime_names(args)
    if others:
        raise UserError("only `xpubench generate` runs several runtimes in turns; name one --runtime")
    if hasattr(args, "tp_size"):
        return registry.sharded(name)
    if options_class(name).shards is not None:
        raise UserError(f"{name} runs over ranks: mpirun -np 2 python run_generation_with_deepspeed.py")
    return name


def _quantization(args: argparse.Namespace, runtime: str) -> Quantization | None:
    if args.output_dir is not None and not args.save_model:
        raise UserError("--output_dir is where --save_model saves; give --save_model too, or leave it out")
    # As in the guide's script for INT4, a saved model and one to be saved are quantized without --woq too.
    if not (args.woq or args.save_model or args.woq_checkpoint_path):
        if lonely := [name for name in RECIPE_FLAGS if getattr(args, name)]:
            raise UserError(f"--{lonely[0]} is for quantized models; give --woq too, or leave it out")
        return None
    method = options_class(runtime).int4_method
    if method is None:
        raise UserError(options_class(runtime).int4_refusal)
    if args.save_model and args.woq_checkpoint_path:
        raise UserError("--woq_checkpoint_path names a saved model; leave out --save_model")
    recipe = recipe_from(args, runtime)
    if args.woq_checkpoint_path is None:
        return recipe
    given = {field for flag, field in RECIPE_FLAGS.items() if getattr(args, flag) is not None}
    return checkpoint_recipe(Path(args.woq_checkpoint_path), recipe, args.model_id, method, given=given)


def model_name(text: str) -> str:
    """The model that a flag names. A relative path of what lies here begins with ./ from then on, because a
    record's readers could not tell models/NAME from a name of the hub."""
    looks_like_the_hub = "/" in text and not text.startswith(("/", ".", "~"))
    return f"./{text}" if looks_like_the_hub and os.path.exists(text) else text


def named_directory(text: str) -> Path:
    """The directory that a flag names, which an empty text does not."""
    if not text:
        raise argparse.ArgumentTypeError("names no directory; . is the current one")
    return Path(text)


def _item_limit(text: str) -> int | None:
    """The number of items, None for the guide's -1, which is all of them."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from error
    return None if number == -1 else number


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number of percent, not {text!r}") from error


def _batch_size(text: str) -> int:
    if text == "auto":
        return AUTO
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, or auto, not {text!r}")
    return int(text)
