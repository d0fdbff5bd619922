"""Where the tokens' time of a finished run went, from the model that is still loaded."""

import msgspec

from xpubench.expectation import with_cause
from xpubench.explanation import Cause, DepthCurve, Explanation
from xpubench.measure.ledger.explanation import explanation_of
from xpubench.measure.ledger.facts import facts_of
from xpubench.measure.ledger.measured import MOST_GENERATIONS
from xpubench.record import Record
from xpubench.run.depth import depth_curve
from xpubench.run.session import Session
from xpubench.runtimes.base import TokenIds
from xpubench.spec import RunSpec

# What a verdict says where a ledger is refused, or shows too little.
NO_CAUSE: tuple[Cause, ...] = ("clock", "unclear")


def explained(
    session: Session[RunSpec], record: Record, prompt_ids: TokenIds, *, explain: bool, depths: list[int]
) -> Record:
    """The record with the ledgers of its tokens where they are asked for, and with the curve over these
    depths. What fails is a warning in the record."""
    found, warnings = Explanation(), []
    if explain:
        session.progress.say(f"explaining the tokens' time in at most {MOST_GENERATIONS} more generations")
        try:
            found = _ledgers(session, record, prompt_ids)
        except Exception as error:
            warnings.append(f"not explained: {_words(error)}")
    if depths:
        session.progress.say(f"measuring the next token at depths of {', '.join(map(str, depths))}")
        try:
            curve = depth_curve(session, record, depths)
            found = _with_depth(found, curve)
        except Exception as error:
            warnings.append(f"no curve over depths: {_words(error)}")
    expectation, cause = record.expectation, _cause(found)
    if expectation is not None and cause is not None:
        expectation = with_cause(expectation, cause)
    return msgspec.structs.replace(
        record,
        expectation=expectation,
        explanation=None if found == Explanation() else found,
        warnings=[*record.warnings, *warnings],
    )


def _ledgers(session: Session[RunSpec], record: Record, prompt_ids: TokenIds) -> Explanation:
    assert isinstance(record.spec, RunSpec)
    workload, explainer = record.spec.workload, session.generator.explainer
    if explainer is None:
        return Explanation(notes=[f"{session.subject.runtime} does not show where its tokens' time goes"])
    facts = facts_of(record, session.facts.architecture)
    return explanation_of(explainer.explain(prompt_ids, workload), facts)


def _with_depth(found: Explanation, curve: DepthCurve) -> Explanation:
    """The explanation with the curve, which says what attention pays for where that bounds the token."""
    verdict = found.verdict
    if verdict is not None and verdict.cause == "attention":
        message = f"{verdict.message}; over the depths {curve.message}"
        verdict = msgspec.structs.replace(verdict, message=message)
    return msgspec.structs.replace(found, verdict=verdict, depth=curve)


def _cause(found: Explanation) -> Cause | None:
    """What bounds the next token, where its ledger says so."""
    if found.next is None or found.verdict is None or found.verdict.cause in NO_CAUSE:
        return None
    return found.verdict.cause


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
