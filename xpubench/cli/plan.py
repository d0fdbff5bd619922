"""Bytes and roofline times of a model on a device, from shapes and data sheets, without loading anything."""

import argparse

from xpubench.catalog import CatalogDevice, config_of, device, devices
from xpubench.catalog.architecture import Architecture
from xpubench.cli.options import add_recipe_flags, recipe_from
from xpubench.errors import UserError
from xpubench.plan import Plan, check_positions, make_plan
from xpubench.spec import DTYPE_BYTES, Workload


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "-m",
        "--model-id",
        required=True,
        metavar="MODEL",
        help="of the catalog, or a directory with config.json",
    )
    known = ", ".join(one.id for one in devices())
    parser.add_argument("--device", metavar="NAME", help=f"a device of the catalog: {known}")
    parser.add_argument("--dtype", choices=list(DTYPE_BYTES), default="float16", help="default: float16")
    group = parser.add_argument_group("INT4 weights")
    group.add_argument("--woq", action="store_true", help="weight-only quantization")
    add_recipe_flags(group)
    parser.add_argument("--input-tokens", type=int, default=1024, metavar="N", help="default: 1024")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--num-beams", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--tp-size", type=int, default=1, metavar="N", help="of ranks that share the model (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the plan; that a model does not fit is an answer too."""
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
    plan = make_plan(
        architecture,
        model=args.model_id,
        dtype=args.dtype,
        batch_size=args.batch_size,
        num_beams=args.num_beams,
        input_tokens=args.input_tokens,
        new_tokens=args.max_new_tokens,
        device=figures,
        quantization=recipe_from(args, "pytorch") if args.woq else None,
        ranks=args.tp_size,
    )
    if args.json:
        import msgspec

        print(msgspec.json.encode(plan).decode())
        return 0
    _print(plan, architecture.part(plan.ranks), workload, figures)
    return 0


def _print(plan: Plan, architecture: Architecture, workload: Workload, figures: CatalogDevice | None) -> None:
    from xpubench.cli.tables import plain_console, plain_table
    from xpubench.report.text import gb, gb_with_unit, number

    console = plain_console()
    precision = plan.dtype if plan.quantization is None else f"{plan.quantization.title} in {plan.dtype}"
    console.print(f"{plan.model} · {precision} · {workload.title(plan.input_tokens)}")
    if plan.ranks > 1:
        console.print(f"of {plan.ranks} ranks the one with the most; sums between them are not counted")
    table = plain_table("memory", "GB", "bytes", "")
    for name, size, how in (
        ("weights", plan.weight_bytes, f"{architecture.parameter_count:,} parameters"),
        ("KV cache", plan.kv_cache_bytes, f"{plan.input_tokens + plan.new_tokens} positions a sequence"),
        ("prefill's activations", plan.activation_bytes, "estimate"),
        ("peak", plan.peak_bytes, ""),
    ):
        table.add_row(name, gb(size, 3), f"{size:,}", how)
    console.print(table)
    if figures is None:
        console.print("Roofline times: name a device with --device.")
        return
    table = plain_table("roofline", "ms", "")
    first = plan.roofline_first_token_ms
    table.add_row("first token", number(first), _first_token_bound(plan, figures))
    table.add_row(
        "next token",
        number(plan.roofline_next_token_ms),
        f"{gb_with_unit(plan.step_bytes)} of weights and KV cache / {figures.bandwidth_gb_per_s:,.0f} GB/s",
    )
    console.print(table)
    verdict = "fit" if plan.fits else "DO NOT FIT"
    console.print(
        f"{figures.name}, {gb(figures.memory_bytes, 1)} GB: weights and KV cache {verdict}"
        + (
            "."
            if not plan.fits or plan.peak_bytes <= figures.memory_bytes
            else ", the estimated peak does not."
        )
    )
    sources = f"Bandwidth: {figures.bandwidth_source}."
    if plan.first_token_bound is not None:
        sources += f" Peak: {figures.peak_source}."
    console.print(sources)
    console.print("Times are lower bounds: no run of these shapes in this precision can be faster.")


def _first_token_bound(plan: Plan, figures: CatalogDevice) -> str:
    if plan.first_token_bound == "compute":
        return f"{plan.prefill_flop / 1e12:.2f} TFLOP / {figures.peak_tflop_per_s:,.1f} TFLOP/s"
    if plan.first_token_bound is None:
        return f"no peak known for {plan.dtype}"
    return f"weights / {figures.bandwidth_gb_per_s:,.0f} GB/s"
