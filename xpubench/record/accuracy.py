"""The results of accuracy tasks, and how far the tokens are from a reference's."""

from typing import Literal

import msgspec

from xpubench.catalog import PublishedAccuracy


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a task: the log-likelihood of its right answer (natural logarithm; None where the task has
    none) and whether the model chose that answer."""

    id: int
    loglikelihood: float | None
    correct: bool | None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How a run with `--until-decided` compares with its `reference`, the id of an accuracy record. `read` of
    `total` items were scored, in a random order that the seed fixes; `gained` of them are right in this run
    alone, and `lost` in the reference alone. `decided` says whether the loss over all items is `within` the
    limit, in percentage points, or `beyond` it: by the count where all items were read, and else by a bound
    that holds at all looks together with a probability of 95% (`xpubench.measure.sequential`)."""

    reference: str
    limit_points: float
    read: int
    total: int
    gained: int
    lost: int
    decided: Literal["within", "beyond"] | None = None


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a task: `acc` and its standard error, the perplexity of the right answers and its
    standard error (of tasks that score one text an item), all of lm-eval's metrics in `metrics` (None where
    one is not a number), and how they were computed. `partial` means that only some of the items were scored.
    Only runs with `--until-decided` have a `decision`.

    `tokens_per_s` counts the scored tokens without padding, and `padding` is the share of padding in all
    positions. `share_of_peak` is the number of operations that these tokens need (counted as in the plan,
    with the output head only for the scored rows), divided by their time and by `peak_tflop_per_s`, the
    highest rate of matrix products in the run's dtype that any process has measured on the device. All four
    are None where texts were generated, and `share_of_peak` also where the model's architecture or the peak
    is not known.
    """

    task: str
    task_version: str
    acc: float | None
    acc_stderr: float | None
    perplexity: float | None
    perplexity_stderr: float | None
    n: int
    partial: bool
    metrics: dict[str, float | None]
    items: list[Item]
    items_per_s: float
    truncated: int
    batch_tokens: int | None
    batch_size: int | None
    padding_side: str
    scores_rows_alone: bool
    lm_eval_version: str
    reference: PublishedAccuracy | None = None
    decision: Decision | None = None
    tokens_per_s: float | None = None
    padding: float | None = None
    share_of_peak: float | None = None
    peak_tflop_per_s: float | None = None


class ReferenceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits beyond which a divergence is a warning or a failure: upper limits on the mean KL divergence
    in nats, and lower limits on the share of positions with the same most probable token."""

    kl_warning: float
    kl_failure: float
    agreement_warning: float
    agreement_failure: float


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How far the run's tokens and logits are from those of a reference (see `xpubench.accuracy.divergence`).
    `mean_kl` is None for a stack that hides its logits. `verdict` applies the `limits`; earlier records have
    neither."""

    reference: str
    top1_agreement: float
    mean_kl: float | None
    first_divergence: list[int | None]
    positions: int
    limits: ReferenceLimits | None = None
    verdict: Literal["ok", "warning", "failure"] | None = None
