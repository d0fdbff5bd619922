"""Bytes and roofline times of a model on a device, from shapes and data sheets, without loading anything."""

import argparse
import os

import msgspec

from xpubench.catalog import CatalogDevice, config_of, device, devices, identify_device
from xpubench.catalog.architecture import Architecture
from xpubench.cli.options import add_quantization_switch, recipe_from
from xpubench.cli.tables import print_table
from xpubench.errors import UserError
from xpubench.expectation import assumed_card, expected, step_work
from xpubench.explanation import DeviceCard, Expectation
from xpubench.measure.ceilings import kept_ceiling
from xpubench.measure.environment import PACKAGES, installed_versions, relevant_variables
from xpubench.measure.host import cpu_name
from xpubench.measure.kept_cards import all_kept_cards, chosen_variables
from xpubench.plan import Plan, check_int4, check_positions, plan_of, stored_weights
from xpubench.report.text import gb, gb_with_unit, number
from xpubench.runtimes import registry
from xpubench.spec import DTYPE_BYTES, Protocol, RunSpec, Subject, Workload

THREADS = "OMP_NUM_THREADS"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    add = parser.add_argument
    note = "a model of the catalog, or a directory with config.json"
    add("-m", "--model-id", required=True, metavar="MODEL", help=note)
    known = ", ".join(one.id for one in devices())
    add("--device", metavar="NAME", help=f"a device of the catalog: {known}")
    add("--dtype", choices=list(DTYPE_BYTES), default="float16", help="default: float16")
    add_quantization_switch(parser)
    add("--input-tokens", type=int, default=1024, metavar="N", help="default: 1024")
    add("--max-new-tokens", type=int, default=128, metavar="N", help="default: 128")
    add("--batch-size", type=int, default=1, metavar="N", help="default: 1")
    add("--num-beams", type=int, default=1, metavar="N", help="default: 1")
    add("--tp-size", type=int, default=1, metavar="N", help="ranks that share the model (default: 1)")
    add("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the plan. A model that does not fit is no error."""
    workload = Workload(
        input_tokens=args.input_tokens,
        new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        num_beams=args.num_beams,
    )
    if args.tp_size < 1:
        raise UserError(f"--tp-size must be at least 1, not {args.tp_size}")
    if args.woq and args.tp_size > 1:
        raise UserError("INT4 runs on one device, not over ranks; leave out --woq")
    figures = device(args.device) if args.device else None
    architecture = Architecture.from_config(config_of(args.model_id))
    check_positions(architecture, args.input_tokens, args.max_new_tokens)
    recipe = recipe_from(args, registry.DEFAULT) if args.woq else None
    model = {
        "model": args.model_id,
        "device": args.device or "",
        "dtype": args.dtype,
        "tp_size": args.tp_size,
    }
    subject = Subject(quantization=recipe, **model)
    check_int4(architecture, subject)
    plan = plan_of(architecture, RunSpec(subject=subject, workload=workload, protocol=Protocol()), figures)
    assert plan is not None
    plan = msgspec.structs.replace(plan, expectation=_expectation(architecture, subject, workload, figures))
    if args.json:
        print(msgspec.json.encode(plan).decode())
    else:
        _print(plan, architecture.part(plan.ranks).parameter_count, workload, figures)
    return 0


def _expectation(
    architecture: Architecture, subject: Subject, workload: Workload, figures: CatalogDevice | None
) -> Expectation | None:
    """The expected next token latency by the card that was measured on that device (without one, on this
    CPU), else by an assumed card with the device's bandwidth by its data sheet (of this CPU, the highest that
    it has shown); None where the bandwidth is not known either."""
    card = _kept_card(subject, figures) or _assumed(figures)
    if card.ceiling_gb_per_s is None:
        return None
    part = architecture.part(subject.tp_size)
    stored = stored_weights(part, subject).step
    values, ranks = DTYPE_BYTES[subject.dtype], subject.tp_size
    work = step_work(part, workload, workload.input_tokens or 0, stored, values, ranks)
    return expected(work, card, ceiling_gb_per_s=card.ceiling_gb_per_s)


def _assumed(figures: CatalogDevice | None) -> DeviceCard:
    if figures is not None:
        of = {"device_name": figures.name, "ceiling_gb_per_s": figures.bandwidth_gb_per_s}
        return msgspec.structs.replace(assumed_card(asynchronous=True), **of)
    threads, name = _threads_here(), cpu_name()
    kept = kept_ceiling("cpu", name, threads)
    shown = [] if kept is None else [kept.gb_per_s]
    # A card of another dtype or other options holds the ceiling that was known then.
    shown += [card.ceiling_gb_per_s or 0.0 for card in all_kept_cards() if _measured_on(card, None)]
    return msgspec.structs.replace(
        assumed_card(asynchronous=False),
        device_kind="cpu",
        device_name=name,
        threads=threads,
        ceiling_gb_per_s=max(shown, default=0.0) or None,
    )


def _kept_card(subject: Subject, figures: CatalogDevice | None) -> DeviceCard | None:
    """The newest card that was measured on the device with the plan's dtype and options, these versions and,
    of a CPU, this number of threads; one with the variables of this process comes before others."""
    if subject.quantization is not None or subject.tp_size > 1:
        return None
    versions = installed_versions((*PACKAGES, *registry.packages()))
    variables = _variables_here()
    options = ", ".join(subject.options.words)
    fitting = [
        card
        for card in all_kept_cards()
        if (card.dtype, card.options, card.versions) == (subject.dtype, options, versions)
        and _measured_on(card, figures)
    ]
    return min(fitting, key=lambda card: card.variables != variables, default=None)


def _measured_on(card: DeviceCard, figures: CatalogDevice | None) -> bool:
    if card.device_name is None:
        return False
    if figures is not None:
        return figures == identify_device(card.device_name, card.device_memory_bytes)
    # Without the variable, a process has as many threads as torch chooses, which only torch knows.
    threads = _threads_here()
    same_threads = card.threads == threads if threads else THREADS not in card.variables
    return card.device_kind == "cpu" and card.device_name == cpu_name() and same_threads


def _variables_here() -> dict[str, str]:
    return chosen_variables(relevant_variables(dict(os.environ)))


def _threads_here() -> int | None:
    """The number of threads that this process's environment asks for; None where it asks for none."""
    told = os.environ.get(THREADS, "")
    return int(told) if told.isdecimal() and int(told) else None


def _source(card: DeviceCard) -> str:
    """Where a plan's card comes from, in words, with the variables that this process has otherwise or not."""
    if card.source == "measured":
        others = sorted(card.variables.items() - _variables_here().items())
        told = [f"with {card.stack}"]
        told += [f"driver {card.driver}"] if card.driver else []
        told += [f"{card.threads} threads"] if card.threads else []
        told += [f"{card.options or 'no options'}"]
        told += [f"{name}={value}" for name, value in others if name != THREADS]
        return f"by the card that was measured on {card.device_name} {', '.join(told)}"
    wide = "here: the interval is wide"
    if card.device_kind != "cpu":
        return f"by an assumed card, as nobody measured a stack on this device {wide}"
    shown = f"the {number(card.ceiling_gb_per_s, 1)} GB/s that {card.device_name} has shown"
    unknown = "nobody measured this stack in this precision with these threads"
    return f"by an assumed card and {shown}, as {unknown} {wide}"


def _print_expectation(found: Expectation) -> None:
    low, high = map(number, found.interval_ms)
    latency = f"{number(found.next_token_ms)} ms ({low} to {high})"
    assert found.device_card is not None
    print(f"Expected next token: {latency}, {found.message}, {_source(found.device_card)}.")


def _print(plan: Plan, parameters: int, workload: Workload, figures: CatalogDevice | None) -> None:
    precision = plan.dtype if plan.quantization is None else f"{plan.quantization.title} in {plan.dtype}"
    print(f"{plan.model} · {precision} · {workload.title(plan.input_tokens)}")
    if plan.ranks > 1:
        print(f"of {plan.ranks} ranks the one with the most; sums between them are not counted")
    positions = plan.input_tokens + plan.new_tokens
    memory = (
        ("weights", plan.weight_bytes, f"{parameters:,} parameters"),
        ("KV cache", plan.kv_cache_bytes, f"{positions} positions a sequence"),
        ("prefill's activations", plan.activation_bytes, "estimate"),
        ("peak", plan.peak_bytes, ""),
    )
    rows = ((name, gb(size, 3), f"{size:,}", note) for name, size, note in memory)
    print_table(("memory", "GB", "bytes", ""), rows)
    if plan.expectation is not None:
        _print_expectation(plan.expectation)
    elif figures is None:
        print("Expected next token: not known, as no run has measured the bandwidth of this CPU here yet.")
    if figures is None:
        print("Roofline times: name a device with --device.")
        return
    speed = f"{figures.bandwidth_gb_per_s:,.0f} GB/s"
    first_token = {
        "compute": f"{plan.prefill_flop / 1e12:.2f} TFLOP / {number(figures.peak_tflop_per_s, 1)} TFLOP/s",
        "memory": f"weights / {speed}",
        None: f"no peak known for {plan.dtype}",
    }
    next_token = f"{gb_with_unit(plan.step_bytes)} of weights and KV cache / {speed}"
    times = (
        ("first token", number(plan.roofline_first_token_ms), first_token[plan.first_token_bound]),
        ("next token", number(plan.roofline_next_token_ms), next_token),
    )
    print_table(("roofline", "ms", ""), times)
    verdict = "fit" if plan.fits else "DO NOT FIT"
    tight = plan.fits and plan.peak_bytes > figures.memory_bytes
    peak = ", the estimated peak does not." if tight else "."
    print(f"{figures.name}, {gb(figures.memory_bytes, 1)} GB: weights and KV cache {verdict}{peak}")
    source = f" Peak: {figures.peak_source}." if plan.first_token_bound is not None else ""
    print(f"Bandwidth: {figures.bandwidth_source}.{source}")
    print("Times are lower bounds: no run of these shapes in this precision can be faster.")
