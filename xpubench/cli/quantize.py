"""Quantize a model's weights to INT4 and save it, with the error that it costs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from xpubench.cli.options import add_recipe_flags, default_dtype, recipe_from
from xpubench.errors import UserError
from xpubench.process.output import own_stdout, quiet
from xpubench.runtimes import registry
from xpubench.runtimes.options import Choose
from xpubench.runtimes.registry import options_class
from xpubench.spec import Dtype, Protocol, Quantization, RunSpec, Subject, Workload

if TYPE_CHECKING:
    from xpubench.cli.console import Reporter
    from xpubench.record import Divergence
    from xpubench.run.quantize import Quantized

WORST_SHOWN = 5


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("model", metavar="MODEL", help="a hub id, a local directory, or smollm2-135m")
    parser.add_argument("output", type=Path, metavar="OUT", help="the directory of the quantized model")
    group = parser.add_argument_group("recipe")
    add_recipe_flags(group)
    group.add_argument(
        "--runtime", action=Choose, metavar="NAME", help=f"that will run it (default: {registry.DEFAULT})"
    )
    for options in registry.OPTIONS.values():
        if options.shortcut is not None and options.int4_method is not None:
            options.add_shortcut(group)
    parser.add_argument("--device", choices=("xpu", "cuda", "cpu"), default="cpu", help="default: cpu")
    parser.add_argument("--revision", help="the hub's branch, tag or commit")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the model's own Python code")
    parser.add_argument("--allow-pickle", action="store_true", help="load .bin weights, which can run code")
    parser.add_argument(
        "--report",
        action="store_true",
        help="the error of each weight, and how far the tokens are from the float32 model's",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and says what it is."""
    runtime = args.runtime or registry.DEFAULT
    if options_class(runtime).int4_method is None:
        raise UserError(options_class(runtime).int4_refusal)
    recipe = recipe_from(args, runtime)
    quiet()
    with own_stdout() as out:
        return _run(args, recipe, runtime, out)


def _run(args: argparse.Namespace, recipe: Quantization, runtime: str, out: TextIO) -> int:
    from xpubench.cli.console import Reporter
    from xpubench.run.quantize import save

    subject = Subject(
        model=args.model,
        device=args.device,
        dtype=cast("Dtype", options_class(runtime).int4_dtypes.get(args.device, default_dtype(args.device))),
        options=options_class(runtime)(),
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        allow_pickle=args.allow_pickle,
        quantization=recipe,
    )
    reporter = Reporter(out)
    with reporter:
        found = save(subject, args.output, reporter, with_errors=args.report)
        distance = _distance(subject, args.output, reporter) if args.report else None
    if args.json:
        print(_json(found, distance), file=out)
    else:
        _print(found, distance, out)
    return 0


def _distance(subject: Subject, directory: Path, reporter: "Reporter") -> "Divergence | None":
    """How far the saved model's answers to the check prompts are from the float32 model's on the CPU."""
    import msgspec

    from xpubench.accuracy.check import CPU_FLOAT32, Checks, cpu_reference

    reporter.say("generating the reference on the CPU in float32")
    assert subject.quantization is not None
    saved = msgspec.structs.replace(subject.quantization, checkpoint=str(directory))
    # The lengths are the check's own.
    spec = RunSpec(
        subject=msgspec.structs.replace(subject, quantization=saved),
        workload=Workload(input_tokens=1, new_tokens=1),
        protocol=Protocol(),
    )
    expected = cpu_reference(spec, None)
    generator = registry.loader(spec.subject.runtime).load(spec.subject)
    try:
        return Checks(generator, CPU_FLOAT32, expected).answer(spec)[1]
    finally:
        generator.close()


def _json(found: "Quantized", distance: "Divergence | None") -> str:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(found) | {"divergence": msgspec.to_builtins(distance)}
    return msgspec.json.encode(fields).decode()


def _print(found: "Quantized", distance: "Divergence | None", out: TextIO) -> None:
    from xpubench.cli.tables import plain_console, plain_table
    from xpubench.report.text import divergence_text, gb_with_unit

    console = plain_console(out)
    recipe = found.description.recipe
    console.print(
        f"{found.description.source} · {recipe.title}, scales in {recipe.scale_dtype}, "
        f"table and head {recipe.head}"
    )
    table = plain_table("", "")
    table.add_row("weights", gb_with_unit(found.file_bytes))
    table.add_row("of the same in float16", f"{found.float16_ratio:.3f}")
    table.add_row("time", f"{found.quantize_s:.1f} s")
    if found.peak_host_bytes is not None:
        table.add_row("peak host memory", gb_with_unit(found.peak_host_bytes))
    if found.relative_l2 is not None:
        table.add_row("relative L2 error of all quantized weights", f"{found.relative_l2:.4f}")
    console.print(table)
    if found.errors:
        worst = sorted(found.errors.items(), key=lambda one: -one[1].relative_l2)[:WORST_SHOWN]
        table = plain_table(f"largest errors of {len(found.errors)} weights", "relative L2", "max abs")
        for name, error in worst:
            table.add_row(name, f"{error.relative_l2:.4f}", f"{error.max_abs:.4g}")
        console.print(table)
    if distance is not None:
        console.print(f"divergence {divergence_text(distance)}")
    console.print(f"run it: {_run_command(found)}")


def _run_command(found: "Quantized") -> str:
    import shlex

    model, directory = shlex.quote(found.description.source), shlex.quote(found.directory)
    return f"python run_generation.py -m {model} --benchmark --woq --woq_checkpoint_path {directory}"
