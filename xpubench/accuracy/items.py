"""The items of a record, made from lm-eval's log or, where a run broke off, from the requests that were
answered before."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpubench.record import Item

# Metrics that say whether an item is right. The first of them that a task has is used.
RIGHT = ("acc", "exact_match")


def logged(task: Any, samples: Sequence[dict[str, Any]]) -> list[Item]:
    """One item for each document of lm-eval's log, which has a document once for each filter of the task; the
    first filter counts."""
    return [_item(task, sample) for sample in samples if sample["filter"] == samples[0]["filter"]]


def answered_so_far(task: Any, done: Sequence[tuple[Any, Any]]) -> list[Item]:
    """Returns what `answered` does while the task's requests are still being answered, without changing the
    task."""
    requests = list(task.instances)
    try:
        return answered(task, done)
    finally:
        task.instances[:] = requests
        for request in requests:
            request.resps, request.filtered_resps = [], {}


def answered(task: Any, done: Sequence[tuple[Any, Any]]) -> list[Item]:
    """The items all of whose requests are answered, made by the task as it does for lm-eval's log. `done`
    holds requests and answers in the order of the answers."""
    responses = defaultdict(list)
    for request, answer in done:
        responses[id(request)].append(answer)
    documents = defaultdict(list)
    for request in task.instances or []:
        request.resps = responses[id(request)]
        documents[request.doc_id].append(request)
    whole = {
        doc_id: sorted(requests, key=lambda request: int(request.idx))
        for doc_id, requests in documents.items()
        if all(len(request.resps) == request.repeats for request in requests)
    }
    if not whole:
        return []
    task.instances[:] = [request for requests in whole.values() for request in requests]
    task.apply_filters()
    kept = next(iter(task.instances[0].filtered_resps))
    items = []
    for doc_id, requests in whole.items():
        doc, resps = requests[0].doc, [request.resps for request in requests]
        sample = {"doc_id": doc_id, "doc": doc, "target": task.doc_to_target(doc), "resps": resps}
        metrics = task.process_results(doc, [request.filtered_resps[kept] for request in requests])
        items.append(_item(task, sample | metrics))
    return items


def _item(task: Any, sample: dict[str, Any]) -> Item:
    found = next((sample[name] for name in RIGHT if np.isscalar(sample.get(name))), None)
    return Item(
        id=int(sample["doc_id"]),
        loglikelihood=_loglikelihood(task, sample),
        correct=None if found is None else bool(found == 1),
    )


def _loglikelihood(task: Any, sample: dict[str, Any]) -> float | None:
    """The log-likelihood of a text or of the right choice (the most probable one where several are right);
    None for generated texts, and where no choice is right."""
    answers = [responses[0] for responses in sample["resps"]]
    if task.OUTPUT_TYPE == "multiple_choice":
        right = [choice for choice in _right_choices(task, sample) if 0 <= choice < len(answers)]
        return max((float(answers[choice][0]) for choice in right), default=None)
    if task.OUTPUT_TYPE == "loglikelihood":
        return float(answers[0][0])
    return float(answers[0]) if task.OUTPUT_TYPE == "loglikelihood_rolling" else None


def _right_choices(task: Any, sample: dict[str, Any]) -> list[int]:
    # With several contexts and one ending, the task's text is the number of the right context.
    target = task.doc_to_text(sample["doc"]) if getattr(task, "multiple_input", 0) else sample["target"]
    if isinstance(target, str):
        choices = task.doc_to_choice(sample["doc"])
        return [choices.index(target)] if target in choices else []
    return [int(choice) for choice in (target if isinstance(target, list) else [target])]
