"""What to try against the cause that bounds a token, each piece of advice with its condition."""

from xpubench.explanation import Cause, Ledger
from xpubench.measure.ledger.facts import RunFacts
from xpubench.runtimes import registry

# The causes against which another runtime that runs a step as one graph can help.
BETWEEN_KERNELS: tuple[Cause, ...] = ("host", "launches")


def advice_on(cause: Cause, ledger: Ledger, facts: RunFacts) -> list[str]:
    """What to try, first what the runtime itself offers. Advice that the run follows already is left out."""
    subject, workload = facts.spec.subject, facts.spec.workload
    lines = subject.options.advice(cause, subject, workload, facts.runtime)
    if cause in (*BETWEEN_KERNELS, "kernels"):
        lines += _other_runtimes(cause, facts)
    if cause == "bandwidth":
        lines += _fewer_bytes(ledger, facts)
    if cause == "communication":
        lines += _over_ranks(ledger)
    if cause == "clock":
        lines.append("end other work on this machine, raise its quota, or run fewer threads; then run again")
    return lines


def _other_runtimes(cause: Cause, facts: RunFacts) -> list[str]:
    subject = facts.spec.subject
    if subject.tp_size > 1 or subject.device in subject.options.one_graph_on:
        return []
    names = registry.with_one_graph(subject.device)
    if not names:
        return []
    why = "a step is then one graph" if cause in BETWEEN_KERNELS else "its kernels are others"
    return [f"try --runtime {names[0]}, where it is installed: {why}"]


def _fewer_bytes(ledger: Ledger, facts: RunFacts) -> list[str]:
    subject = facts.spec.subject
    if subject.quantization is not None or subject.options.precision is not None or subject.tp_size > 1:
        return []
    if subject.dtype == "float32" and subject.device != "cpu":
        return ["try --dtype bfloat16: the weights are then half the bytes"]
    times = {part.name: part.ns for part in ledger.parts}
    if times.get("weights", 0) < times.get("kv_cache", 0):
        return []
    needed = subject.options.int4_dtypes.get(subject.device, subject.dtype)
    if subject.options.int4_method is None or needed != subject.dtype or subject.dtype == "float32":
        return []
    return ["try --woq, if the accuracy of INT4 is enough: the weights are then a quarter of the bytes"]


def _over_ranks(ledger: Ledger) -> list[str]:
    times = {part.name: part.ns for part in ledger.parts}
    if times.get("waiting", 0) > times.get("collectives", 0):
        return ["give the ranks equal processors or devices: most of it is waiting for the slowest rank"]
    return ["run on fewer ranks if the model fits: each token pays for the sums over them"]
