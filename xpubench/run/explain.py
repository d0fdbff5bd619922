"""Where the tokens' time of a finished run went, from the model that is still loaded."""

import msgspec

from xpubench.explanation import Explanation
from xpubench.measure.ledger.explanation import explanation_of
from xpubench.measure.ledger.facts import facts_of
from xpubench.measure.ledger.measured import MOST_GENERATIONS
from xpubench.record import Record
from xpubench.run.depth import depth_curve
from xpubench.run.session import Session
from xpubench.runtimes.base import TokenIds
from xpubench.spec import RunSpec


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
            found = msgspec.structs.replace(found, depth=curve)
        except Exception as error:
            warnings.append(f"no curve over depths: {_words(error)}")
    return msgspec.structs.replace(
        record,
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


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
