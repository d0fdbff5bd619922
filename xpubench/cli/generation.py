"""Measure the latency of each token of one model on one device, and check the tokens."""

import argparse
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import msgspec

from xpubench.catalog import SMOLLM2
from xpubench.cli.options import (
    accuracy_specs_from,
    add_accuracy_flags,
    add_model_flags,
    add_protocol_flags,
    add_quantization_flags,
    add_runtime_flags,
    add_workload_flags,
    runtime_names,
    specs_from,
)
from xpubench.cli.output import own_stdout, quiet
from xpubench.errors import UserError
from xpubench.runtimes import registry
from xpubench.spec import AccuracySpec, RunSpec

if TYPE_CHECKING:
    from xpubench.cli.console import Reporter
    from xpubench.record import Record
    from xpubench.results import ResultsDirectory


def add_flags(parser: argparse.ArgumentParser, *, ranks: bool = False) -> None:
    """The command's flags; with `ranks` also those of the runtimes that share a model among ranks."""
    modes = parser.add_argument_group("what to do")
    modes.add_argument(
        "--benchmark", action="store_true", help="measure the latency (also without this flag)"
    )
    modes.add_argument("--accuracy-only", action="store_true", help="run lm-eval tasks instead")
    add_model_flags(parser)
    add_runtime_flags(parser, ranks=ranks)
    add_quantization_flags(parser)
    add_workload_flags(parser)
    add_protocol_flags(parser)
    add_accuracy_flags(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--reference",
        metavar="RECORD|cpu-float32",
        help="report how far tokens and logits are from this record's, or from the CPU's in float32",
    )
    group.add_argument(
        "--results-dir", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )
    group.add_argument(
        "--only", nargs="+", metavar="ID", help="of the combinations, run those of these ids (for a suite)"
    )
    group.add_argument("--json", action="store_true", help="the record on standard output, one line a run")
    group.add_argument(
        "--token-latency", action="store_true", help="list each token's time of the median iteration"
    )
    group.add_argument("--print-memory", action="store_true", help="list the plan's memory beside the peaks")
    group.add_argument(
        "--profile",
        action="store_true",
        help="write a Chrome trace and an operator table of one more generation (PROFILE=1 does it too)",
    )
    group.add_argument(
        "--profile_name", default="profile", metavar="NAME", help="part of their names (default: profile)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the specs; 0 when all went well, 1 when one failed."""
    if not args.profile_name.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"--profile_name {args.profile_name!r} is part of a file's name; use letters, digits, - and _"
        )
    runtimes = runtime_names(args)
    if len(runtimes) > 1:
        from xpubench.cli.side_by_side import run as run_side_by_side

        return run_side_by_side(args, runtimes)
    # The seconds that torch takes to import are not spent on a wrong flag.
    asked(args)
    quiet()
    with own_stdout() as out:
        return _run(args, out)


def asked(args: argparse.Namespace) -> list[RunSpec] | list[AccuracySpec]:
    """What the flags ask for, on the CPU where they name no device; UserError where they contradict."""
    return _specs(args, args.device or "cpu")


def _specs(args: argparse.Namespace, device: str) -> list[RunSpec] | list[AccuracySpec]:
    if not args.accuracy_only:
        return specs_from(args, device)
    if args.reference is not None:
        raise UserError(
            "--reference is of latency runs; xpubench compare holds two accuracy records together"
        )
    from xpubench.accuracy.tasks import SMOKE, check_installed, stay_offline, with_data

    specs = accuracy_specs_from(args, device)
    check_installed()
    if args.acc_data is not None and all(spec.task.name == SMOKE for spec in specs):
        raise UserError(
            f"{SMOKE} has its own passages; give --acc-data to lambada_standard or lambada_openai"
        )
    specs = [msgspec.structs.replace(spec, task=with_data(spec.task)) for spec in specs]
    model_is_here = args.model_id.lower() == SMOLLM2 or Path(args.model_id).expanduser().is_dir()
    if model_is_here and all(spec.task.data is not None for spec in specs):
        stay_offline()
    return specs


def _run(args: argparse.Namespace, out: TextIO) -> int:
    from xpubench.cli.console import Reporter
    from xpubench.record import encode
    from xpubench.results import ResultsDirectory

    reporter = Reporter(out)
    specs = _specs(args, args.device or _first_device(args, reporter))
    if args.only is not None:
        specs = _only(specs, set(args.only))
    results = ResultsDirectory(args.results_dir)
    if args.save_model:
        specs = _saved(specs, args.output_dir, reporter)
    signal.signal(signal.SIGTERM, _interrupt)
    records = []
    with reporter:
        for record in _records(args, specs, results, reporter):
            records.append(record)
            if args.json:
                print(encode(record).decode(), file=out, flush=True)
            else:
                reporter.show(
                    record,
                    token_latency=args.token_latency,
                    memory=args.print_memory,
                    directory=results.path,
                )
    reporter.end(records)
    return 0 if all(record.status == "ok" for record in records) else 1


def _only(specs: list[RunSpec] | list[AccuracySpec], ids: set[str]) -> list[RunSpec] | list[AccuracySpec]:
    if missing := ids - {spec.id for spec in specs}:
        raise UserError(f"no combination of the flags has the id {min(missing)}")
    return [spec for spec in specs if spec.id in ids]  # type: ignore[return-value]


def _saved(
    specs: list[RunSpec] | list[AccuracySpec], directory: Path, reporter: "Reporter"
) -> list[RunSpec] | list[AccuracySpec]:
    """Quantizes into the directory; the specs then run what was saved there."""
    from xpubench.run.quantize import save

    subject = specs[0].subject
    with reporter:
        save(subject, directory, reporter, with_errors=False)
    assert subject.quantization is not None
    recipe = msgspec.structs.replace(subject.quantization, checkpoint=str(directory))
    saved = msgspec.structs.replace(subject, quantization=recipe)
    return [msgspec.structs.replace(spec, subject=saved) for spec in specs]  # type: ignore[return-value]


def _records(
    args: argparse.Namespace,
    specs: list[RunSpec] | list[AccuracySpec],
    results: "ResultsDirectory",
    reporter: "Reporter",
) -> Iterator["Record"]:
    if args.accuracy_only:
        from xpubench.run.accuracy import run as run_accuracy

        return run_accuracy(cast("list[AccuracySpec]", specs), results, reporter)
    from xpubench.run.latency import run as run_benchmark

    profiled = args.profile or os.environ.get("PROFILE", "").lower() in ("1", "y", "yes", "on", "true")
    return run_benchmark(
        cast("list[RunSpec]", specs),
        results,
        reporter,
        reference=args.reference,
        profile_name=args.profile_name if profiled else None,
    )


def _first_device(args: argparse.Namespace, reporter: "Reporter") -> str:
    device = first_device(runtime_names(args)[0])
    reporter.say(f"no --device given: using {device}")
    return device


def first_device(runtime: str) -> str:
    """The preferred device of those that the runtime finds here; UserError where it cannot be set up."""
    loader = registry.loader(runtime)
    loader.set_up()
    return loader.first_device()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
