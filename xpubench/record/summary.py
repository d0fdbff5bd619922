"""The figures of a successful run."""

from typing import Literal

import msgspec


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of `n` samples in milliseconds. `ci95` is the 95% interval of the median; where the run has
    several loads, it is resampled over these too. `p99` is None below 100 samples."""

    median: float
    ci95: tuple[float, float] | None
    mean: float
    stdev: float | None
    p50: float
    p90: float
    p99: float | None
    n: int


class SequentialInterval(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency of a run that `--until-ci` may end: the geometric mean of the medians of the
    first `pairs` stamped generations, and the 95% interval around it that holds at all looks together
    (`xpubench.measure.sequential`; for independent pairs with normal logarithms), None below five pairs.
    `half_width` is how far the interval reaches above the mean, `wanted` how far it might, both as shares of
    the mean. Where it was `reached`, these pairs ended the run, but for one more pair that closes it where
    the number of iterations allows one, and which is not among them. The interval tells the noise in one
    process, and nothing of that between processes."""

    wanted: float
    reached: bool
    pairs: int
    mean_ms: float
    ci95_ms: tuple[float, float] | None
    half_width: float | None


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="latency"):
    """The figures of a successful latency run. `perturbation`, the MBUs and `imbalance` are ratios; the last
    is the slowest rank's end-to-end latency over the mean of all ranks. The peaks of memory are those of
    warm-up and measured iterations, `load_s` is the time of the load in seconds. `until_ci` is None where the
    number of iterations was given. `perturbation_pairs` is the number of prompts from which generations under
    both sync policies were timed, and `perturbation_ci95` the interval of the geometric mean of their ratios,
    None with fewer than three; earlier records, which lack both, have a pair for each prompt.

    `mbu_measured` is the share of `bandwidth_measured_gb_per_s`, which is the most that the device has shown
    to any process where `ceiling_of` is "device", and what the run's own process reached before the run where
    it is "process". `mbu_measured_interval` reaches from the share of that ceiling at the upper end of the
    next token latency's interval to the share of `bandwidth_lowest_gb_per_s`, the lower of the process's
    ceilings before and after the timed part, at the lower end. Where tokens are drafted, both are of the
    main model's steps: their number is told by `tokens_per_step`, the new tokens of a step after the first,
    and `acceptance` is the share of a draft model's tokens that were accepted.
    `available_host_bytes_per_iteration` is the slope of the machine's available memory over the measured
    iterations, below 0 where it falls.

    `load_s` is the median where there are several loads, and `load_spread` how far the slowest load's median
    next token latency (the first token's where there is no other) lies above the fastest load's, as a share
    of that. `cores` is the process's CPU time over the wall's during the measured iterations, and
    `cores_wanted` adds the time for which its threads waited for a core.

    `prompt_tokens_per_s` is batch x input tokens / the median first token latency, and `prompt_share_of_peak`
    the plan's operations of the prompt over that latency and `peak_tflop_per_s`, the most of matrix products
    in the run's dtype that the device has shown to any process.
    """

    first_token_ms: Statistic
    next_token_ms: Statistic | None
    end_to_end_ms: Statistic
    tokens_per_s: float
    perturbation: float
    mbu_measured: float | None
    mbu_datasheet: float | None
    bandwidth_measured_gb_per_s: float | None
    bandwidth_datasheet_gb_per_s: float | None
    step_bytes: int | None
    peak_device_bytes: int | None
    peak_host_bytes: int | None
    load_s: float
    input_tokens: int
    imbalance: float | None = None
    mbu_measured_interval: tuple[float, float] | None = None
    bandwidth_lowest_gb_per_s: float | None = None
    ceiling_of: Literal["device", "process"] = "process"
    available_host_bytes_per_iteration: float | None = None
    until_ci: SequentialInterval | None = None
    tokens_per_step: float | None = None
    acceptance: float | None = None
    perturbation_ci95: tuple[float, float] | None = None
    perturbation_pairs: int | None = None
    load_spread: float | None = None
    cores: float | None = None
    cores_wanted: float | None = None
    prompt_tokens_per_s: float | None = None
    prompt_share_of_peak: float | None = None
    peak_tflop_per_s: float | None = None


class AccuracySummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="accuracy"):
    """The peaks of memory of an accuracy run while it scored, and the time of its load in seconds."""

    peak_device_bytes: int | None = None
    peak_host_bytes: int | None = None
    load_s: float | None = None
