"""From the raw samples of a run to its figures and the warnings about them."""

from statistics import fmean, median
from typing import Literal

import msgspec

from xpubench.measure import perturbation
from xpubench.measure.cores import cores, cores_wanted, too_few_cores
from xpubench.measure.iterations import STEADY, steady
from xpubench.measure.leak import falls_steadily, slope_of
from xpubench.measure.statistics import different_loads, doubts, load_spread, summarize, too_few
from xpubench.measure.until_ci import sequential_interval, unreached
from xpubench.record import Bandwidth, Iteration, LatencySummary, Samples, Statistic


class SummaryInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a summary needs in addition to the samples. Bandwidths are in GB/s, memory is in bytes; `until_ci`
    is the protocol's, and `prefill_flop` the number of floating point operations of the prompt's pass."""

    batch_size: int
    input_tokens: int
    new_tokens: int
    load_s: float
    step_bytes: int | None
    bandwidth_measured_gb_per_s: float | None = None
    bandwidth_datasheet_gb_per_s: float | None
    peak_device_bytes: int | None
    peak_host_bytes: int | None
    until_ci: float | None = None
    bandwidth_lowest_gb_per_s: float | None = None
    ceiling_of: Literal["device", "process"] = "process"
    prefill_flop: int | None = None
    peak_tflop_per_s: float | None = None


def with_ceilings(inputs: SummaryInputs, bandwidth: Bandwidth) -> SummaryInputs:
    """The inputs with the ceilings of a measured bandwidth."""
    return msgspec.structs.replace(
        inputs,
        bandwidth_measured_gb_per_s=bandwidth.highest_gb_per_s,
        bandwidth_lowest_gb_per_s=bandwidth.lowest_gb_per_s,
        ceiling_of="process" if bandwidth.highest is None else "device",
    )


def summarize_run(samples: Samples, facts: SummaryInputs) -> tuple[LatencySummary, list[str]]:
    """The summary of a run and the warnings about it. First and next token latencies come from the policy
    `every_token`, the end-to-end latency and tokens/s (batch x new tokens / median) from `end_to_end`, which
    synchronizes only at the ends. The perturbation is the median over the pairs of `every_token` /
    `end_to_end`."""
    stamped = [one for one in samples.iterations if one.sync_policy == "every_token"]
    whole = [one for one in samples.iterations if one.sync_policy == "end_to_end"]
    warnings: list[str] = []

    def statistic(name: str, rows: list[list[int]], loads: list[int]) -> Statistic:
        summary = summarize(rows, loads)
        warnings.extend(doubts(name, rows, summary, loads))
        return summary

    firsts = [[one.first_token_ns] for one in stamped if one.first_token_ns]
    of_first = [one.load for one in stamped if one.first_token_ns]
    first = statistic("first token", firsts, of_first)
    later = [one.next_token_ns for one in stamped if one.next_token_ns]
    of_later = [one.load for one in stamped if one.next_token_ns]
    next_token = statistic("next token", later, of_later) if later else None
    end_to_end = statistic("end to end", [[one.end_to_end_ns] for one in whole], [one.load for one in whole])
    spread = load_spread(later, of_later) if later else load_spread(firsts, of_first)
    warnings += different_loads("next token" if later else "first token", spread)
    uses = [one.cpu for one in samples.iterations if one.cpu is not None]
    warnings += too_few_cores(uses)
    of_pairs = perturbation.ratios(samples.iterations)
    slowed = median(of_pairs)
    if slowed > perturbation.MOST:
        warnings.append(
            f"perturbation {slowed:.3f}: stamping every token slows the run by more than "
            f"{perturbation.MOST - 1:.0%}; trust tokens/s rather than the next token latency"
        )
    step = _steps(stamped) or next_token
    step_ms = step.median if step else None
    measured = _mbu(facts.step_bytes, step_ms, facts.bandwidth_measured_gb_per_s)
    datasheet = _mbu(facts.step_bytes, step_ms, facts.bandwidth_datasheet_gb_per_s)
    for name, value in (("measured bandwidth", measured), ("data sheet's bandwidth", datasheet)):
        if value is not None and value > 1:
            warnings.append(f"MBU {value:.2f} of the {name} is above 1: a bug of the measurement, report it")
    ceiling, sheet = facts.bandwidth_measured_gb_per_s, facts.bandwidth_datasheet_gb_per_s
    if ceiling is not None and sheet is not None and ceiling > sheet:
        warnings.append(
            f"the measured bandwidth of {ceiling:.1f} GB/s is above the data sheet's {sheet:.1f}: a cache "
            "or compression took part, or the device is another one; do not trust MBU"
        )
    available = [one.available_host_bytes for one in samples.iterations if one.available_host_bytes]
    if falls_steadily(available):
        warnings.append(
            f"the machine's available memory fell by {-(slope_of(available) or 0) / 2**20:.1f} MiB an "
            "iteration; what a driver pins or another program takes is not in the peak of the host's memory"
        )
    prompt_share = _share_of_peak(facts, first.median)
    if prompt_share is not None and prompt_share > 1:
        warnings.append(
            f"the prompt's pass reached {prompt_share:.2f} of torch's or the stack's own matrix product: its "
            "kernels are faster, or it computes in another precision; do not trust the share"
        )
    given = msgspec.structs.asdict(facts)
    batch_size = given.pop("batch_size")
    del given["prefill_flop"]
    share = given.pop("until_ci")
    reached = None if share is None else sequential_interval(samples.iterations, share)
    warnings += unreached(reached)
    summary = LatencySummary(
        first_token_ms=first,
        next_token_ms=next_token,
        end_to_end_ms=end_to_end,
        tokens_per_s=batch_size * given.pop("new_tokens") / (end_to_end.median / 1e3),
        prompt_tokens_per_s=batch_size * facts.input_tokens / (first.median / 1e3),
        prompt_share_of_peak=prompt_share,
        perturbation=slowed,
        perturbation_ci95=perturbation.ratio_interval(of_pairs),
        perturbation_pairs=len(of_pairs),
        mbu_measured=measured,
        mbu_datasheet=datasheet,
        available_host_bytes_per_iteration=slope_of(available),
        mbu_measured_interval=_mbu_interval(facts, step),
        tokens_per_step=_tokens_per_step(stamped),
        acceptance=_acceptance(samples.iterations),
        imbalance=_imbalance(samples.iterations),
        until_ci=reached,
        load_spread=spread,
        cores=cores(uses),
        cores_wanted=cores_wanted(uses),
        **given,
    )
    return summary, too_few(len(stamped)) + unsteady(samples.warmup) + warnings


def _share_of_peak(facts: SummaryInputs, first_ms: float) -> float | None:
    """The share of the matrix products' peak that the prompt's operations reach in the first token
    latency."""
    if facts.prefill_flop is None or not facts.peak_tflop_per_s:
        return None
    return facts.prefill_flop / (first_ms / 1e3) / (facts.peak_tflop_per_s * 1e12)


def _imbalance(iterations: list[Iteration]) -> float | None:
    """The median over the iterations of the slowest rank's time over the mean of all ranks'."""
    ends = [[stamps[-1] for stamps in one.ranks_ns] for one in iterations if one.ranks_ns]
    return median(max(row) / fmean(row) for row in ends) if ends else None


def unsteady(warmup: list[Iteration]) -> list[str]:
    """A warning when the warm-up of a load ended before two successive generations agreed."""
    for load in dict.fromkeys(one.load for one in warmup) or [0]:
        of_load = [one.end_to_end_ns for one in warmup if one.load == load]
        if len(of_load) < 2 or not steady(*of_load[-2:]):
            count = f"{len(of_load)} generation{'s' * (len(of_load) != 1)}"
            agreed = f"two successive ones agreed within {STEADY:.0%}"
            return [f"warm-up: {count} ended before {agreed}; raise --num-warmup"]
    return []


def _steps(stamped: list[Iteration]) -> Statistic | None:
    """The mean time of each iteration's steps after the first, where steps give several tokens; None where
    each gives one."""
    found = _later_steps(stamped)
    rows = [[round(sum(times) / steps)] for _, times, steps in found]
    return summarize(rows, [load for load, _, _ in found]) if rows else None


def _tokens_per_step(stamped: list[Iteration]) -> float | None:
    found = _later_steps(stamped)
    return median(len(times) / steps for _, times, steps in found) if found else None


def _later_steps(stamped: list[Iteration]) -> list[tuple[int, list[int], int]]:
    """The load, the times of the tokens after the first, and the number of steps that gave them, of each
    iteration whose tokens were drafted."""
    return [
        (one.load, one.next_token_ns, len(one.drafting.step_tokens) - 1)
        for one in stamped
        if one.drafting is not None and one.next_token_ns and len(one.drafting.step_tokens) > 1
    ]


def _acceptance(iterations: list[Iteration]) -> float | None:
    """The share of all drafted tokens that were accepted."""
    told = [one.drafting for one in iterations if one.drafting is not None and one.drafting.drafted]
    drafted = sum(one.drafted or 0 for one in told)
    return sum(one.accepted or 0 for one in told) / drafted if drafted else None


def _mbu(step_bytes: int | None, step_ms: float | None, gb_per_s: float | None) -> float | None:
    """Model bandwidth utilization: bytes that a decoding step must read / its time / the bandwidth."""
    if step_bytes is None or step_ms is None or not gb_per_s:
        return None
    return step_bytes / (step_ms / 1e3) / (gb_per_s * 1e9)


def _mbu_interval(facts: SummaryInputs, step: Statistic | None) -> tuple[float, float] | None:
    """The smallest and the largest MBU: from the slower end of the latency's interval with the highest
    ceiling, and from the faster end with the lowest. None where the latency has no interval, the process
    has no ceiling of its own or there is no MBU."""
    if step is None or step.ci95 is None or facts.bandwidth_lowest_gb_per_s is None:
        return None
    fast_ms, slow_ms = step.ci95
    least = _mbu(facts.step_bytes, slow_ms, facts.bandwidth_measured_gb_per_s)
    largest = _mbu(facts.step_bytes, fast_ms, facts.bandwidth_lowest_gb_per_s)
    return None if least is None or largest is None else (least, largest)


def median_iteration(samples: Samples) -> Iteration | None:
    """The stamped iteration whose median next token latency is the median of all."""
    stamped = [one for one in samples.iterations if one.sync_policy == "every_token"]
    ordered = sorted(stamped, key=lambda one: median(one.next_token_ns or [one.end_to_end_ns]))
    return ordered[(len(ordered) - 1) // 2] if ordered else None
