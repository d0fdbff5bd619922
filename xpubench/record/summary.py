"""The figures of a successful run."""

from typing import Literal

import msgspec


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of `n` samples in milliseconds. `ci95` is the 95% bootstrap interval of the median; where the
    run has several loads, the loads are resampled too. `p99` is None below 100 samples."""

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
    `half_width` is how far the interval reaches above the mean, and `wanted` the limit on that, both as
    shares of the mean. `reached` tells that the interval became as tight as this and so ended the run; the
    run then makes one more pair, where the number of iterations allows it, which does not count in `pairs`.
    The interval covers the noise within one process, and not the noise between processes."""

    wanted: float
    reached: bool
    pairs: int
    mean_ms: float
    ci95_ms: tuple[float, float] | None
    half_width: float | None


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="latency"):
    """The figures of a successful latency run. `perturbation`, the MBUs and `imbalance` are ratios;
    `imbalance` is the slowest rank's end-to-end latency divided by the mean of all ranks. The peaks of memory
    cover the warm-up and the measured iterations. `until_ci` is None where the number of iterations was
    fixed. `perturbation_pairs` is the number of prompts from which generations under both sync policies were
    timed, and `perturbation_ci95` the 95% interval of the geometric mean of their ratios, None with fewer
    than three. Earlier records lack both and have a pair for each prompt.

    `mbu_measured` is the share of `bandwidth_measured_gb_per_s`. Where `ceiling_of` is "device", that
    bandwidth is the highest that any process has measured on the device; where it is "process", it is what
    the run's own process reached before the run. The lower end of `mbu_measured_interval` is computed from
    that ceiling and the upper end of the next token latency's interval; its upper end from
    `bandwidth_lowest_gb_per_s`, the lower of the process's ceilings before and after the timed part, and the
    lower end of that interval. It is None where the latency has no interval. Where tokens are drafted, both
    MBUs are those of the main model's steps; `tokens_per_step` is the mean number of new tokens in a step
    after the first, and `acceptance` the share of the draft model's tokens that were accepted.
    `available_host_bytes_per_iteration` is the slope of the machine's available memory over the measured
    iterations, below 0 where it falls; it is None for fewer than ten iterations.

    `load_s` is the time of the load in seconds, the median where there are several loads. `load_spread` is
    how far the slowest load's median next token latency (first token latency where a run makes one token)
    lies above the fastest load's, as a share of the fastest. `cores` is the process's CPU time during the
    measured iterations divided by their wall time, and `cores_wanted` adds the time for which its threads
    waited for a core.

    `prompt_tokens_per_s` is batch x input tokens / the median first token latency. `prompt_share_of_peak` is
    the number of operations that the plan counts for the prompt, divided by that latency and by
    `peak_tflop_per_s`, the highest rate of matrix products in the run's dtype that any process has measured
    on the device.
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
    """The peaks of memory of an accuracy run during the scoring, and the time of its load in seconds."""

    peak_device_bytes: int | None = None
    peak_host_bytes: int | None = None
    load_s: float | None = None
