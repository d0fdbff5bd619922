"""Items of a record from what lm-eval logged, or from the requests that were answered before a run broke."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpubench.record import Item

# What says whether an item is right, the first that a task has.
RIGHT = ("acc", "exact_match")


def logged(task: Any, samples: Sequence[dict[str, Any]]) -> list[Item]:
    """One item a document of lm-eval's log. A task with several filters logs each document once a filter;
    the first filter's are kept."""
    return [_item(task, sample) for sample in samples if sample["filter"] == samples[0]["filter"]]


def answered(task: Any, done: Sequence[tuple[Any, Any]]) -> list[Item]:
    """The items whose requests are all answered, made by the task as lm-eval makes its log; `done` holds
    requests and answers in the order in which they came."""
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
        doc = requests[0].doc
        sample = {
            "doc_id": doc_id,
            "doc": doc,
            "target": task.doc_to_target(doc),
            "resps": [request.resps for request in requests],
        }
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
    """Of the document's answer: a text's own, or of several choices the right one's (the most probable one's
    where several are right); None of generated texts, and where no choice is right."""
    answers = [responses[0] for responses in sample["resps"]]
    if task.OUTPUT_TYPE == "multiple_choice":
        right = [choice for choice in _right_choices(task, sample) if 0 <= choice < len(answers)]
        return max((float(answers[choice][0]) for choice in right), default=None)
    if task.OUTPUT_TYPE == "loglikelihood":
        return float(answers[0][0])
    return float(answers[0]) if task.OUTPUT_TYPE == "loglikelihood_rolling" else None


def _right_choices(task: Any, sample: dict[str, Any]) -> list[int]:
    # With several contexts and one ending, the task's text is the number of the right context.
    several_contexts = getattr(task, "multiple_input", 0)
    target = task.doc_to_text(sample["doc"]) if several_contexts else sample["target"]
    if isinstance(target, str):
        choices = task.doc_to_choice(sample["doc"])
        return [choices.index(target)] if target in choices else []
    return [int(choice) for choice in (target if isinstance(target, list) else [target])]
