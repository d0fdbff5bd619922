"""Run what the guide's table asks of this machine's platform, and write the report."""

import argparse
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

from xpubench.catalog import CatalogModel, models
from xpubench.catalog import model as model_named
from xpubench.catalog.architecture import architecture_of
from xpubench.catalog.platforms import platform_of, platform_title, platforms
from xpubench.cli.reference import DTYPE
from xpubench.cli.report import check_page, write_out
from xpubench.cli.suite import add_run_flags, directories_of, named_in, orders_of, run_and_tell, stack_of
from xpubench.cli.suite_plan import print_time
from xpubench.errors import UserError, unknown
from xpubench.results import PAGE
from xpubench.run import suite
from xpubench.run.order import Order
from xpubench.run.supervisor import find_mpirun
from xpubench.runtimes.registry import DEFAULT, loader
from xpubench.spec import DTYPE_BYTES

# By the mode of the guide's table the built-in suites that measure it.
SUITES = {"fp16": ("benchmark", "accuracy"), "int4": ("benchmark-woq", "accuracy-woq")}
# The guide's published runs over ranks are on this platform.
OVER_RANKS, RANKS_PLATFORM = ("benchmark-ds", "accuracy-ds"), "max"
# A task whose accuracies were published for some models, which is scored for these beside the guide's own.
GUIDE_TASK, PUBLISHED_TASK = "lambada_standard", "lambada_openai"
# The suite whose flags tell the machine's device.
PROBE = "benchmark"
# A float32 run is made where its weights take at most this share of the device's memory.
FITTING_SHARE = 0.8


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    names = ", ".join(one.id for one in platforms())
    note = f"what the table asks of that one: {names} (default: by the name of this machine's device)"
    parser.add_argument("--platform", metavar="NAME", help=note)
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="only these of the table's models")
    add_run_flags(parser)
    parser.set_defaults(stack="auto")


def run(args: argparse.Namespace) -> int:
    """Runs the suites of the table and the references, as one list that an earlier call may have begun, and
    writes the page; 0 when every run is well, 1 when one failed."""
    if not args.dry_run:
        check_page(args.results_dir / PAGE, PAGE)
    chosen = _chosen(args.models)
    directories = directories_of(args, 1)
    flags = suite.words(args.flags)
    stack = stack_of(suite.read_suite(SUITES["fp16"][0]), args.stack, flags)
    platform = _platform(args.platform, stack, flags)
    asked = [one for one in chosen if platform in one.platforms]
    orders = [
        order
        for mode, names in SUITES.items()
        for name in (*names, *(_suites_over_ranks(platform) if mode == "fp16" else ()))
        for model in asked
        if getattr(model, mode)
        for order in _orders(suite.read_suite(name), name, model, stack, flags)
    ]
    if not orders:
        raise UserError(f"the guide's table asks nothing of {platform_title(platform)} with these --models")
    if args.models is not None:
        _say_lacking([one.id for one in chosen if one not in asked], platform)
    _say_what(asked, platform, len(orders))
    references, too_large = _references(asked, flags)
    orders += references
    _say_references(references, too_large, args.results_dir)
    if not args.dry_run:
        _say_how_long(orders, directories)
    code = run_and_tell(orders, directories, args)
    if not args.dry_run:
        _write_page(args.results_dir)
    return code


def _suites_over_ranks(platform: str) -> tuple[str, ...]:
    if platform != RANKS_PLATFORM:
        return ()
    try:
        find_mpirun()
    except UserError as error:
        print(f"distributed FP16 is left out: {error}", flush=True)
        return ()
    return OVER_RANKS


def _orders(read: suite.Suite, name: str, model: CatalogModel, stack: str, flags: list[str]) -> list[Order]:
    """The orders of one suite for one model, which is also scored on the task that has a published figure."""
    tasks = ["--acc-tasks", GUIDE_TASK, PUBLISHED_TASK] if PUBLISHED_TASK in model.accuracy else []
    more = [*(tasks if name.startswith("accuracy") else []), *flags]
    return orders_of(read, suite.command_lines(read, [model.id], more, stack=stack), both_kinds=True)


def _chosen(names: list[str] | None) -> list[CatalogModel]:
    """The catalog's models, or those with the names; UserError for a name that it lacks."""
    ids = None if names is None else {model_named(name).id for name in names}
    return [one for one in models() if ids is None or one.id in ids]


def _platform(asked: str | None, stack: str, flags: list[str]) -> str:
    """The guide's platform that was asked for, or the one of this machine's device; UserError where there
    is none."""
    known = [one.id for one in platforms()]
    if asked is not None:
        if asked not in known:
            raise unknown("platform", asked, known)
        return asked
    [order] = _orders(suite.read_suite(PROBE), PROBE, models()[0], stack, flags)
    subject = order.specs[0].subject
    runtime = loader(subject.runtime)
    runtime.set_up()
    facts = runtime.device(subject).facts()
    found = platform_of(subject.device, facts)
    if found not in known:
        raise UserError(
            f"{facts.name} is none of the guide's platforms; --platform {' or '.join(known)} runs here what "
            "the table asks of that one"
        )
    return found


def _references(asked: Sequence[CatalogModel], flags: list[str]) -> tuple[list[Order], list[str]]:
    """The orders of the float32 runs that accuracies are compared with, as `xpubench reference` makes them,
    of the models without a published one; and the ids of those models whose float32 weights do not fit on
    the device. There are none where the weights are random."""
    given = named_in(flags)
    wanting = [one for one in asked if not {GUIDE_TASK, PUBLISHED_TASK} & one.accuracy.keys()]
    if given.dummy_weights or not wanting:
        return [], []
    more = ["--runtime", DEFAULT, "--dtype", DTYPE, "--accuracy-only", "--acc-tasks", GUIDE_TASK]
    more += [] if given.device is None else ["--device", given.device]
    more += ["--allow-pickle"] * given.allow_pickle + ["--trust-remote-code"] * given.trust_remote_code
    commands = [suite.CommandLine(flags=["-m", one.id, *more], ranks=None) for one in wanting]
    orders = orders_of(suite.read_suite(PROBE), commands)
    memory_bytes = _memory_bytes(orders[0])
    fitting = [_float32_bytes(one) <= FITTING_SHARE * memory_bytes for one in wanting]
    return (
        [order for order, fits in zip(orders, fitting, strict=True) if fits],
        [one.id for one, fits in zip(wanting, fitting, strict=True) if not fits],
    )


def _memory_bytes(order: Order) -> int:
    """The memory of the order's device; 0 where it is not here."""
    subject = order.specs[0].subject
    runtime = loader(subject.runtime)
    try:
        runtime.set_up()
        return runtime.device(subject).facts().total_memory_bytes or 0
    except UserError:
        return 0


def _float32_bytes(model: CatalogModel) -> int:
    architecture = architecture_of(model.config())
    assert architecture is not None, model.id
    return architecture.parameter_count * DTYPE_BYTES[DTYPE]


def _say_lacking(names: Sequence[str], platform: str) -> None:
    if names:
        where = platform_title(platform)
        print(f"left out, because the guide's table does not ask for them on {where}: {', '.join(names)}")


def _say_what(asked: Sequence[CatalogModel], platform: str, processes: int) -> None:
    models_here = f"{len(asked)} models of the guide's table"
    print(f"platform: {platform_title(platform)}; {models_here}, {processes} processes")


def _say_references(made: Sequence[Order], too_large: Sequence[str], results: Path) -> None:
    if made:
        print(
            f"of {len(made)} of them no accuracy is published: a process more for each makes the reference, "
            f"the whole task in {DTYPE}"
        )
    if too_large:
        print(
            f"of {len(too_large)} of them no accuracy is published, and their {DTYPE} weights do not fit "
            "here; their cells say `no reference` until a larger machine has made one:"
        )
    for name in too_large:
        print(f"  xpubench reference -m {name} --results-dir {results}")
    print(end="", flush=True)


def _say_how_long(orders: list[Order], directories: list[Path]) -> None:
    # Another process measures the device, so that this one holds none of its memory during the runs.
    other = get_context("spawn").Process(target=print_time, args=(orders, directories))
    other.start()
    other.join()


def _write_page(results: Path) -> None:
    from xpubench.report.page.pages import report_page

    write_out(report_page([results]), results / PAGE)
