"""Quantize a model's weights to INT4 and save it, with the error that it costs."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import msgspec

from xpubench.cli.options import (
    DEVICES,
    add_loading_flags,
    add_recipe_flags,
    model_name,
    recipe_from,
)
from xpubench.cli.tables import print_table
from xpubench.errors import UserError
from xpubench.process.output import own_stdout
from xpubench.record import Divergence
from xpubench.report.text import divergence_text, gb_with_unit
from xpubench.runtimes import registry
from xpubench.runtimes.options import Choose, default_dtype
from xpubench.runtimes.registry import options_class
from xpubench.spec import Dtype, Protocol, Quantization, RunSpec, Subject, Workload
from xpubench.weights.int4.recipes import CalibratedRecipe

if TYPE_CHECKING:
    from xpubench.cli.console import Reporter
    from xpubench.run.quantize import Quantized

WORST_SHOWN = 5
CALIBRATED: dict[str, Literal["AutoRound", "AWQ"]] = {"autoround": "AutoRound", "awq": "AWQ"}
# That of auto-round itself.
DEFAULT_ITERS = 200
CALIBRATION_FLAGS = ("dataset", "iters", "nsamples", "seqlen")
# What auto-round decides by itself, or has no word for.
NOT_CALIBRATED = ("woq_algo", "scale_dtype", "compute_dtype", "woq_head", "woq_keep", "report")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    add = parser.add_argument
    add("model", type=model_name, metavar="MODEL", help="a hub id, a local directory, or smollm2-135m")
    add("output", type=Path, metavar="OUT", help="the directory of the quantized model")
    group = parser.add_argument_group("recipe")
    add_recipe_flags(group)
    note = f"the runtime that will run it (default: {registry.DEFAULT})"
    group.add_argument("--runtime", action=Choose, metavar="NAME", help=note)
    for options in registry.OPTIONS.values():
        if options.int4_method is not None:
            options.add_shortcut(group)
    note = "rtn rounds to nearest, autoround and awq calibrate on --dataset through the package auto-round"
    add("--algorithm", choices=["rtn", *CALIBRATED], default="rtn", help=f"{note} (default: rtn)")
    group = parser.add_argument_group("calibration (with --algorithm autoround or awq)")
    note = 'a local file of text, or of {"text": "..."} lines (.jsonl)'
    group.add_argument("--dataset", metavar="FILE", help=note)
    note = f"steps that AutoRound learns a block's rounding in (default: {DEFAULT_ITERS})"
    group.add_argument("--iters", type=int, metavar="N", help=note)
    group.add_argument("--nsamples", type=int, metavar="N", help="samples of --dataset (default: 128)")
    group.add_argument("--seqlen", type=int, metavar="N", help="tokens of a sample (default: 2048)")
    add("--device", choices=DEVICES, default="cpu", help="default: cpu")
    add_loading_flags(parser)
    note = "the error of each weight, and how far the tokens are from the float32 model's"
    add("--report", action="store_true", help=note)
    add("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and says what it is."""
    if args.algorithm in CALIBRATED:
        return _run_calibrated(args)
    if lonely := [name for name in CALIBRATION_FLAGS if getattr(args, name) is not None]:
        raise UserError(f"--{lonely[0]} is for --algorithm autoround or awq; give that too, or leave it out")
    options = options_class(args.runtime or registry.DEFAULT)
    if options.int4_method is None:
        raise UserError(options.int4_refusal)
    subject = Subject(
        model=args.model,
        device=args.device,
        dtype=cast("Dtype", options.int4_dtypes.get(args.device, default_dtype(args.device))),
        options=options(),
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        allow_pickle=args.allow_pickle,
        quantization=recipe_from(args, options.name()),
    )
    with own_stdout() as out:
        from xpubench.cli.console import Reporter
        from xpubench.run.quantize import save_quantized

        with Reporter(out) as reporter:
            found = save_quantized(subject, args.output, reporter, with_errors=args.report)
            distance = _distance(subject, args.output, reporter) if args.report else None
        if args.json:
            fields: dict[str, Any] = msgspec.to_builtins(found)
            print(msgspec.json.encode(fields | {"divergence": distance}).decode(), file=out)
        else:
            _print(found, options.name(), distance, out)
    return 0


def _run_calibrated(args: argparse.Namespace) -> int:
    """Writes a checkpoint that auto-round quantizes with data, and says what it is."""
    recipe = _calibrated_recipe(args)
    subject = Subject(
        model=args.model,
        device="cpu",
        dtype="float32",
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        allow_pickle=args.allow_pickle,
    )
    with own_stdout() as out:
        from xpubench.cli.console import Reporter
        from xpubench.run.quantize import save_calibrated

        with Reporter(out) as reporter:
            found = save_calibrated(subject, recipe, args.output, reporter)
        if args.json:
            print(msgspec.json.encode(found).decode(), file=out)
        else:
            print(f"{found.description.source} · {recipe.title}", file=out)
            print_table(("", ""), _sizes(found), out=out)
            print(f"run it: python run_generation.py -m {shlex.quote(found.directory)} --benchmark", file=out)
    return 0


def _calibrated_recipe(args: argparse.Namespace) -> CalibratedRecipe:
    """The recipe that the flags name; UserError for those that go with rounding to nearest alone."""
    algorithm = CALIBRATED[args.algorithm]
    if lonely := [name for name in NOT_CALIBRATED if getattr(args, name)]:
        raise UserError(f"--{lonely[0]} is for --algorithm rtn; leave it out with {args.algorithm}")
    if args.runtime not in (None, registry.DEFAULT):
        raise UserError(f"{algorithm} checkpoints run on {registry.DEFAULT}; leave out --runtime")
    if args.device != "cpu":
        raise UserError(f"--algorithm {args.algorithm} quantizes on the CPU; leave out --device")
    if args.woq_dtype == "int4_clip":
        raise UserError(f"{algorithm} has the grids int4_fullrange and int4_asym, not int4_clip")
    if args.dataset is None:
        raise UserError(f"--algorithm {args.algorithm} calibrates on texts; give --dataset FILE")
    if algorithm == "AWQ" and args.iters is not None:
        raise UserError("--iters is for --algorithm autoround; leave it out with awq")
    iters = (args.iters if args.iters is not None else DEFAULT_ITERS) if algorithm == "AutoRound" else None
    given = {name: getattr(args, name) for name in ("nsamples", "seqlen", "group_size")}
    return CalibratedRecipe(
        algorithm=algorithm,
        dataset=args.dataset,
        iters=iters,
        symmetric=args.woq_dtype != "int4_asym",
        **{name: value for name, value in given.items() if value is not None},
    )


def _distance(subject: Subject, directory: Path, reporter: "Reporter") -> Divergence | None:
    """The distance of the saved model's answers to the check prompts from the float32 model's on the CPU."""
    from xpubench.accuracy.check import CPU_FLOAT32, Checks, cpu_reference, reference_limits
    from xpubench.accuracy.limits import precision_of

    reporter.say("generating the reference on the CPU in float32")
    assert subject.quantization is not None
    saved = msgspec.structs.replace(subject.quantization, checkpoint=str(directory))
    # The check prompts have lengths of their own, so that the lengths in this workload have no effect.
    spec = RunSpec(
        subject=msgspec.structs.replace(subject, quantization=saved),
        workload=Workload(input_tokens=1, new_tokens=1),
        protocol=Protocol(),
    )
    expected = cpu_reference(spec, None)
    generator = registry.loader(spec.subject.runtime).load(spec.subject)
    try:
        limits = reference_limits(CPU_FLOAT32, precision_of(spec.subject), max_kl=None, min_agreement=None)
        return Checks(generator, CPU_FLOAT32, expected, limits).answer(spec)[1]
    finally:
        generator.close()


def _print(found: "Quantized", runtime: str, distance: Divergence | None, out: TextIO) -> None:
    recipe, source = found.description.recipe, found.description.source
    assert isinstance(recipe, Quantization)
    scales = f"scales in {recipe.scale_dtype}, table and head {recipe.head}"
    print(f"{source} · {recipe.title}, {scales}", file=out)
    rows = _sizes(found)
    if found.relative_l2 is not None:
        rows.append(("relative L2 error of all quantized weights", f"{found.relative_l2:.4f}"))
    print_table(("", ""), rows, out=out)
    if found.errors:
        worst = sorted(found.errors.items(), key=lambda one: -one[1].relative_l2)[:WORST_SHOWN]
        errors = ((name, f"{error.relative_l2:.4f}", f"{error.max_abs:.4g}") for name, error in worst)
        title = f"largest errors of {len(found.errors)} weights"
        print_table((title, "relative L2", "max abs"), errors, out=out)
    if distance is not None:
        print(f"divergence {divergence_text(distance)}", file=out)
    chosen = registry.choosing_flag(runtime)
    command = f"python run_generation.py -m {shlex.quote(source)} --benchmark{chosen} --woq"
    print(f"run it: {command} --woq_checkpoint_path {shlex.quote(found.directory)}", file=out)


def _sizes(found: "Quantized") -> list[tuple[str, str]]:
    """The rows of sizes and of time."""
    rows = [
        ("weights", gb_with_unit(found.file_bytes)),
        ("of the same in float16", f"{found.float16_ratio:.3f}"),
        ("time", f"{found.quantize_s:.1f} s"),
    ]
    if found.peak_host_bytes is not None:
        rows.append(("peak host memory", gb_with_unit(found.peak_host_bytes)))
    return rows
