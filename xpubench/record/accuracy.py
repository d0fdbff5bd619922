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
    """Where a run with `--until-decided` stands beside the reference, an accuracy record by its id: `gained`
    items are right now, `lost` were right there, of `read` ones in an order drawn by the seed, of `total` in
    all. `decided` tells whether the loss over all items is `within` the limit, in percentage points, or
    `beyond` it, by a bound that holds at all looks together with a probability of 95%
    (`xpubench.measure.sequential`) or, where all were read, by their count."""

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
    one is not a number), and how they were computed. `partial` means that only some of the items were
    scored, and `decision` is that of a run with `--until-decided`.

    `tokens_per_s` counts the tokens that were scored without padding, whose share of all positions is
    `padding`. `share_of_peak` is that of the operations that they need (as in the plan, the output head for
    the scored rows alone) over their time and `peak_tflop_per_s`, the most of matrix products in the run's
    dtype that the device has shown to any process. All are None where texts were generated or nothing is
    known."""

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
    """From where on a divergence is a warning, and a failure: the mean KL divergence in nats, and the share
    of positions with the same most probable token."""

    kl_warning: float
    kl_failure: float
    agreement_warning: float
    agreement_failure: float


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How far the tokens are from a reference's (see `xpubench.accuracy.divergence`). `mean_kl` is None for a
    stack that hides its logits. `verdict` is what the limits make of it; earlier records have none."""

    reference: str
    top1_agreement: float
    mean_kl: float | None
    first_divergence: list[int | None]
    positions: int
    limits: ReferenceLimits | None = None
    verdict: Literal["ok", "warning", "failure"] | None = None
