"""Where the time of a token goes, from the performance counters of a compiled model's nodes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from statistics import fmean
from time import perf_counter_ns
from typing import Any, NamedTuple

import msgspec
import numpy as np

from xpubench.errors import RunFailure
from xpubench.explanation import OperatorTime, PartName
from xpubench.measure.ledger.measured import Measured, MeasuredToken
from xpubench.measure.ledger.middle import middle_mean
from xpubench.measure.ledger.processors import Waits
from xpubench.record import SyncPolicy
from xpubench.runtimes.base import Generation, TokenIds
from xpubench.runtimes.openvino.nodes import part_of_node
from xpubench.runtimes.openvino.stack import import_openvino
from xpubench.spec import Workload

COUNT_NODES = {"PERF_COUNT": True}
METHOD = "OpenVINO's counters of a second compilation's nodes, over one generation"
# A node's average is cut to whole microseconds, which takes half a microsecond off on average.
CUT_OFF_NS = 500.0
# The model compiled with counters warms up with the prompt's pass and one step.
WARM_UP_TOKENS = 2
# The cost of a counted node is measured on a model of this many nodes, with this many inferences each with
# and without counters.
NODES, ROUNDS = 200, 100

Generate = Callable[[TokenIds, Workload, SyncPolicy], Generation]
# The object that holds the runtime's infer request, and the name of the attribute.
RequestPlace = tuple[Any, str]


class Counted(NamedTuple):
    """A node's counters: its average time over all inferences so far, in nanoseconds, and whether it ran."""

    node_type: str
    name: str
    average_ns: float
    ran: bool


class Counters(NamedTuple):
    """The nodes' counters after this number of inferences."""

    inferences: int
    nodes: list[Counted]


class WatchedRequest:
    """Wraps an infer request, records how long each inference takes, and reads the counters after the first
    inference since `begin`; `reading_ns` is how long that reading took. Everything else is passed on to the
    request."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._start_ns = self.inferences = 0
        self.begin()

    def begin(self) -> None:
        """Forgets the times of earlier inferences."""
        self.infer_ns: list[int] = []
        self.after_first: Counters | None = None
        self.reading_ns = 0

    def infer(self, *arguments: Any, **named: Any) -> Any:
        start_ns = perf_counter_ns()
        result = self._request.infer(*arguments, **named)
        self._ended(start_ns)
        return result

    def start_async(self, *arguments: Any, **named: Any) -> None:
        self._start_ns = perf_counter_ns()
        self._request.start_async(*arguments, **named)

    def wait(self) -> None:
        self._request.wait()
        self._ended(self._start_ns)

    def counters(self) -> Counters:
        """The current counters of the nodes."""
        microsecond = timedelta(microseconds=1)
        nodes = [
            Counted(
                one.node_type,
                one.node_name,
                one.real_time / microsecond * 1e3,
                str(one.status) == "Status.EXECUTED",
            )
            for one in self._request.get_profiling_info()
        ]
        return Counters(self.inferences, nodes)

    def _ended(self, start_ns: int) -> None:
        end_ns = perf_counter_ns()
        self.infer_ns.append(end_ns - start_ns)
        self.inferences += 1
        if len(self.infer_ns) == 1:
            self.after_first = self.counters()
            self.reading_ns = perf_counter_ns() - end_ns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def explain_nodes(
    generate: Generate,
    prompt_ids: TokenIds,
    workload: Workload,
    request: Any,
    place: RequestPlace,
    event_ns: float,
) -> Measured:
    """Measures the parts of the tokens with `request`, which belongs to a model compiled with counters and
    takes the `place` of the runtime's own request. It makes a short generation to warm up, the one that is
    measured, and another one through the runtime's own request. `event_ns` is the cost of counting a node.
    Raises RunFailure `unsupported` where the number of inferences is not the number of tokens."""
    watched, waits = WatchedRequest(request), Waits()
    with _in_place(place, watched):
        short = msgspec.structs.replace(workload, new_tokens=min(WARM_UP_TOKENS, workload.new_tokens))
        generate(prompt_ids, short, "every_token")
        before = watched.counters()
        watched.begin()
        with waits.watching():
            times = generate(prompt_ids, workload, "every_token").times
    after_first, last = watched.after_first, watched.counters()
    if after_first is None or len(watched.infer_ns) != len(times.token_ns):
        count = len(watched.infer_ns)
        raise RunFailure("unsupported", f"{count} inferences for {len(times.token_ns)} tokens")
    with waits.watching():
        unprofiled = generate(prompt_ids, workload, "every_token").times.iteration()
    measured = times.iteration()
    assert measured.first_token_ns is not None
    first_ns = measured.first_token_ns - watched.reading_ns
    first = _token([first_ns], watched.infer_ns[:1], before, after_first, event_ns)
    steps, following = measured.next_token_ns or [], None
    if steps:
        following = _token(steps, watched.infer_ns[1:], after_first, last, event_ns)
        beside = middle_mean(unprofiled.next_token_ns or steps)
        following = msgspec.structs.replace(following, unprofiled_ns=beside)
    return Measured(
        method=METHOD,
        first=msgspec.structs.replace(first, unprofiled_ns=unprofiled.first_token_ns),
        next=following,
        cpu_share=waits.share,
        generations=3,
        notes=[
            "the second compiled model lies elsewhere in memory, which can change its time by some percent"
        ],
    )


@contextmanager
def _in_place(place: RequestPlace, request: WatchedRequest) -> Iterator[None]:
    owner, name = place
    own = getattr(owner, name)
    setattr(owner, name, request)
    try:
        yield
    finally:
        setattr(owner, name, own)


def _token(
    walls_ns: Sequence[int], infer_ns: Sequence[int], before: Counters, after: Counters, event_ns: float
) -> MeasuredToken:
    """The mean token between two readings of the counters. The times inside and outside of inferences are
    means over the middle half of the inferences. The nodes' times are means over all inferences, and are
    scaled to match."""
    infer, wall = middle_mean(infer_ns), middle_mean(walls_ns)
    scale = infer / fmean(infer_ns)
    operators: dict[tuple[str, PartName], tuple[float, int]] = {}
    counted = 0
    for node, ns in _between(before, after):
        key = (node.node_type, part_of_node(node.node_type, node.name))
        time, calls = operators.get(key, (0.0, 0))
        operators[key] = time + ns * scale, calls + 1
        counted += 1
    parts: dict[PartName, float] = {}
    for (_, part), (ns, _) in operators.items():
        parts[part] = parts.get(part, 0.0) + ns
    nodes = sum(parts.values())
    parts["stack"] = max(infer - nodes - counted * event_ns, 0.0)
    parts["host"] = max(wall - infer, 0.0)
    return MeasuredToken(
        parts=parts,
        operators=[
            OperatorTime(name=name, part=part, ns=ns, calls=calls)
            for (name, part), (ns, calls) in operators.items()
        ],
        profiled_ns=wall,
        events=counted,
        event_ns=event_ns,
    )


def _between(before: Counters, after: Counters) -> list[tuple[Counted, float]]:
    """The nodes that ran between two readings, each with its mean time in nanoseconds. Counters are averages
    over all inferences since the compilation."""
    n, m = before.inferences, after.inferences
    found = []
    for earlier, later in zip(before.nodes, after.nodes, strict=True):
        if later.ran:
            mean = (m * later.average_ns - n * earlier.average_ns) / (m - n) + CUT_OFF_NS
            found.append((later, max(mean, 0.0)))
    return found


@cache
def node_cost_ns(device: str) -> float:
    """The time that counting adds to a node, in nanoseconds: the difference between the fastest inferences
    with and without counters of a small model whose nodes compute next to nothing, for each node."""
    openvino = import_openvino()
    from openvino import opset13

    start = node = opset13.parameter([1, 16], dtype=np.float32)
    for _ in range(NODES):
        node = opset13.softmax(node, axis=1)
    model, core = openvino.Model([node], [start]), openvino.Core()
    requests = [core.compile_model(model, device, more).create_infer_request() for more in ({}, COUNT_NODES)]
    times: list[list[int]] = [[], []]
    for _ in range(ROUNDS):
        for request, own in zip(requests, times, strict=True):
            start_ns = perf_counter_ns()
            request.infer()
            own.append(perf_counter_ns() - start_ns)
    without, counted = map(min, times)
    return max((counted - without) / NODES, 0.0)
