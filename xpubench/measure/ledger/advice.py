"""What to try against the cause that bounds a token, each piece of advice with its condition."""

from xpubench.explanation import Cause, Ledger
from xpubench.measure.ledger.facts import RunFacts
from xpubench.runtimes import registry
from xpubench.spec import DTYPE_BYTES

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
    subject, names = facts.spec.subject, registry.with_one_graph(facts.spec.subject.device)
    # These runtimes load checkpoints.
    loads = subject.tp_size == 1 and subject.weights == "pretrained"
    if not (names and loads) or subject.device in subject.options.one_graph_on:
        return []
    if cause in BETWEEN_KERNELS and subject.options.compiles and facts.spec.workload.cache == "static":
        return []
    why = "a step is then one graph" if cause in BETWEEN_KERNELS else "its kernels are others"
    other = registry.options_class(names[0])
    refusal = f"; {other.int4_refusal}" if subject.quantization is not None and other.int4_refusal else ""
    return [f"try --runtime {names[0]}, where it is installed: {why}{refusal}"]


def _fewer_bytes(ledger: Ledger, facts: RunFacts) -> list[str]:
    subject = facts.spec.subject
    if subject.tp_size > 1 or _keeps_its_weights(facts):
        return []
    if subject.dtype == "float32" and subject.device != "cpu":
        return ["try --dtype bfloat16: the weights are then half the bytes"]
    times = {part.name: part.ns for part in ledger.parts}
    if times.get("weights", 0) < times.get("kv_cache", 0) or subject.lora is not None:
        return []
    needed = subject.options.int4_dtypes.get(subject.device, subject.dtype)
    if subject.options.int4_method is None or needed != subject.dtype or subject.dtype == "float32":
        return []
    return ["try --woq, if the accuracy of INT4 is enough: the weights are then a quarter of the bytes"]


def _keeps_its_weights(facts: RunFacts) -> bool:
    """Whether the weights are quantized already, or are in a file that the runtime runs as it is, whatever
    the dtype."""
    subject, loaded = facts.spec.subject, facts.runtime
    precision = subject.options.precision or (loaded.precision_class if loaded is not None else None)
    quantized = subject.quantization is not None or precision not in (None, *DTYPE_BYTES)
    return quantized or subject.options.weight_bytes(subject.model, 1) is not None


def _over_ranks(ledger: Ledger) -> list[str]:
    times = {part.name: part.ns for part in ledger.parts}
    if times.get("waiting", 0) > times.get("collectives", 0):
        return ["give the ranks equal processors or devices: most of it is waiting for the slowest rank"]
    return ["run on fewer ranks if the model fits: each token pays for the sums over them"]
