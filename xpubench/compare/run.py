"""Two runs, each given by its rounds: what differs between them, the figures, and a verdict."""

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

import msgspec

from xpubench.compare.accuracy import AccuracyComparison, compare_accuracies
from xpubench.compare.divergences import farther, other_references
from xpubench.compare.environments import EnvironmentDifference, Environments, differences
from xpubench.compare.figures import FIGURES, FigureName, unusable
from xpubench.compare.judgement import Judgement, Verdict
from xpubench.compare.parts import TimeChange, time_change
from xpubench.compare.processes import Judge, Limits
from xpubench.compare.title import title_of
from xpubench.compare.work import other_model, recipe_text
from xpubench.record import Record
from xpubench.spec import AccuracySpec, RunSpec

RunVerdict = Verdict | Literal["newly failing", "failing in both", "no longer failing", "missing"]


class RunComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A run and its base. `primary` is the figure that gives the verdict, one of `figures` or, of accuracy
    runs, the judgement on the accuracy. `prompt_tokens_per_s` is the rate of the prompt on both sides, the
    median over the rounds, None where a record does not tell it. `parts` tells which parts of the token's
    time changed, where both sides have ledgers. `beyond` names the other figures that changed by more than
    their limits. `differs` names the fields of the subject that are not the same, with both values,
    `environment` the digests of the checkpoints and the facts of the environments, and `warnings` holds those
    of both sides' records. `adjusted_p` is the p-value of the primary figure after Benjamini and Hochberg's
    adjustment for the number of runs, and `blocks_alone` the number of a live comparison's blocks in which
    the sides ran one after the other."""

    id: str
    title: str
    verdict: RunVerdict
    reason: str
    primary: Judgement | None = None
    parts: TimeChange | None = None
    figures: dict[FigureName, Judgement] = {}
    prompt_tokens_per_s: tuple[float, float] | None = None
    accuracy: AccuracyComparison | None = None
    beyond: list[str] = []
    differs: list[str] = []
    environment: list[EnvironmentDifference] = []
    warnings: list[str] = []
    top1_agreement: float | None = None
    mean_kl: float | None = None
    adjusted_p: float | None = None
    blocks_alone: int = 0


def compare_runs(
    base: Sequence[Record], new: Sequence[Record], limits: Limits, primary: FigureName, judge: Judge
) -> RunComparison:
    """Compares two latency runs or two accuracy runs, each given by its rounds, at least one. Rounds of the
    base that failed are left out where others went well, and a round of the new run that failed is then a
    failure; runs fail in both only where all rounds of the base failed. `judge` judges the figures of
    latency runs. The last round counts for accuracy, divergence and tokens."""
    after = new[-1]
    well = [record for record in base if record.status == "ok"]
    counting = well or base
    shared: dict[str, Any] = {
        "id": after.id,
        "title": title_of(after),
        "differs": _differing(counting[-1], after),
        "environment": differences(Environments(counting), Environments(new)),
        "warnings": [
            *_warnings("base", counting),
            *_warnings("new", new),
            *other_references(counting[-1], after),
        ],
    }
    if failing := _failing(base, new):
        return RunComparison(**shared, verdict=failing[0], reason=failing[1])
    if len(well) < len(base):
        shared["warnings"].append(
            f"base: {len(base) - len(well)} of {len(base)} rounds failed and are left out"
        )
    if reason := _not_comparable(well[-1], after) or _without_figures(well, new):
        return RunComparison(**shared, verdict="not comparable", reason=reason)
    if isinstance(after.spec, AccuracySpec):
        return _compare_accuracy(well[-1], after, shared)
    return _compare_latency(well, new, limits, primary, judge, shared)


def _compare_accuracy(base: Record, new: Record, shared: dict[str, Any]) -> RunComparison:
    found = compare_accuracies(base, new)
    if isinstance(found, str):
        return RunComparison(**shared, verdict="not comparable", reason=found)
    perplexity = found.perplexity
    beyond = []
    if perplexity is not None and perplexity.beyond_limit:
        beyond.append(perplexity.named("perplexity"))
    return RunComparison(
        **shared,
        verdict=found.accuracy.verdict,
        reason=found.accuracy.reason,
        primary=found.accuracy,
        accuracy=found,
        beyond=beyond,
    )


def _compare_latency(
    base: Sequence[Record],
    new: Sequence[Record],
    limits: Limits,
    primary: FigureName,
    judge: Judge,
    shared: dict[str, Any],
) -> RunComparison:
    figures = judge(base, new, limits)
    shared["prompt_tokens_per_s"] = _prompt_rates(base, new)
    after = new[-1]
    # A run of one new token has no next token latency.
    of_one_token = isinstance(after.spec, RunSpec) and after.spec.workload.new_tokens == 1
    name: FigureName = "first_token" if of_one_token and primary.startswith("next_token") else primary
    beyond = [
        one.named(FIGURES[other].title)
        for other, one in figures.items()
        if other != name and one.beyond_limit
    ]
    if name not in figures:
        reason = f"a record has no {FIGURES[name].title}; choose another figure with --primary"
        return RunComparison(
            **shared, verdict="not comparable", reason=reason, figures=figures, beyond=beyond
        )
    decisive = figures[name]
    return RunComparison(
        **shared,
        verdict=decisive.verdict,
        reason=f"{FIGURES[name].title}, ratio {decisive.text}: {decisive.reason}",
        primary=decisive,
        parts=time_change(base, new, name, decisive),
        figures=figures,
        beyond=[*beyond, *_other_tokens(base[-1], after), *farther(base[-1], after)],
        top1_agreement=after.divergence.top1_agreement if after.divergence else None,
        mean_kl=after.divergence.mean_kl if after.divergence else None,
    )


def _prompt_rates(base: Sequence[Record], new: Sequence[Record]) -> tuple[float, float] | None:
    sides = [
        [one.latency.prompt_tokens_per_s for one in side if one.latency is not None] for side in (base, new)
    ]
    before, after = ([rate for rate in side if rate is not None] for side in sides)
    return (median(before), median(after)) if before and after else None


def _other_tokens(base: Record, new: Record) -> list[str]:
    """A remark where the tokens of the same prompt are others."""
    place = first_other_token(base, new)
    count = len(new.output.first_token_ids) if new.output is not None else 0
    return [f"other tokens for the same prompt, from token {place} of {count}"] if place else []


def first_other_token(base: Record, new: Record) -> int | None:
    """The first of the untimed generation's tokens, from 1, that the two runs do not share, 0 where they
    share all; None where their prompts differ or a record has no tokens."""
    if not isinstance(base.spec, RunSpec) or not isinstance(new.spec, RunSpec):
        return None
    # A prompt of text is the same whatever the seed.
    same_prompt = new.spec.workload.prompt or base.spec.protocol.seed == new.spec.protocol.seed
    if base.output is None or new.output is None or not same_prompt:
        return None
    pairs = list(zip(base.output.first_token_ids, new.output.first_token_ids, strict=False))
    return next((at for at, (before, after) in enumerate(pairs, 1) if before != after), 0) if pairs else None


def _failing(base: Sequence[Record], new: Sequence[Record]) -> tuple[RunVerdict, str] | None:
    """The verdict on runs that failed; None where both can be compared."""
    before, after = ([record for record in side if record.status != "ok"] for side in (base, new))
    if len(before) == len(base):
        if not after:
            return "no longer failing", f"{before[-1].status} before"
        some = f" in {len(after)} of {len(new)} rounds" if len(after) < len(new) else ""
        return "failing in both", f"{before[-1].status} before, {after[-1].status} now{some}"
    if not after:
        return None
    rounds = f" in {len(after)} of {len(new)} rounds" if len(new) > 1 else ""
    earlier = f", of the base in {len(before)} of {len(base)}" if before else ""
    message = after[-1].failure.message if after[-1].failure else ""
    return "newly failing", f"{after[-1].status}{rounds}{earlier}: {message}"


def _not_comparable(base: Record, new: Record) -> str | None:
    """The field in which the work differs; None where it is the same."""
    one, other = base.spec, new.spec
    if isinstance(one, RunSpec) is not isinstance(other, RunSpec):
        return "one is a latency, the other an accuracy"
    if reason := other_model(base, new):
        return reason
    if not isinstance(one, RunSpec) or not isinstance(other, RunSpec):
        return None
    if one.subject.weights != other.subject.weights:
        return f"other weights: {one.subject.weights} and {other.subject.weights}"
    for field in one.workload.__struct_fields__:
        left, right = getattr(one.workload, field), getattr(other.workload, field)
        # Another cache is another way to do the same work.
        if left != right and field != "cache":
            return f"another {field}: {left} and {right}"
    return None


def _without_figures(base: Sequence[Record], new: Sequence[Record]) -> str | None:
    for name, rounds in (("base", base), ("new", new)):
        for record in rounds:
            if isinstance(record.spec, AccuracySpec):
                reason = None if record.accuracy is not None else "holds no accuracy"
            else:
                reason = unusable(record)
            if reason:
                return f"the {name} run {reason}"
    return None


def _warnings(name: str, rounds: Sequence[Record]) -> list[str]:
    """The warnings of one side; of those that differ only in their numbers, the first."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for record in rounds:
        for warning in record.warnings:
            kinds[re.sub(r"[\d.]+", "", warning)].append(warning)
    return [
        f"{name}: {alike[0]}" + (f" (and {len(alike) - 1} like it)" if len(alike) > 1 else "")
        for alike in kinds.values()
    ]


def _differing(base: Record, new: Record) -> list[str]:
    """The fields in which the subjects, or the kinds of cache, differ."""
    one, other = _fields(base), _fields(new)
    ours, theirs = one.pop("options"), other.pop("options")
    if ours["runtime"] == theirs["runtime"]:
        one |= ours
        other |= theirs
    else:
        one["runtime"], other["runtime"] = base.spec.subject.options.label, new.spec.subject.options.label
    return [
        f"{name}: {one.get(name, 'none')} and {other.get(name, 'none')}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _fields(record: Record) -> dict[str, Any]:
    spec = record.spec
    fields: dict[str, Any] = msgspec.to_builtins(spec.subject)
    fields["quantization"] = recipe_text(record)
    fields["cache"] = spec.workload.cache if isinstance(spec, RunSpec) else None
    return {name: value for name, value in fields.items() if value is not None}
