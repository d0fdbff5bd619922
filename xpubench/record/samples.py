"""The raw samples of a run: the times of its generations and of its loads."""

from typing import Literal

import msgspec

SyncPolicy = Literal["every_token", "end_to_end"]


class Drafting(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a generation whose tokens are drafted first and then accepted or rejected. `step_tokens`
    is the number of new tokens of each step of the main model, the prompt's step first. `drafted` and
    `accepted` count the tokens of the draft model, and `main_ns` and `draft_ns` are the times in the two
    models in nanoseconds; these four are None where the tokens are drafted from the prompt."""

    step_tokens: list[int]
    drafted: int | None = None
    accepted: int | None = None
    main_ns: int | None = None
    draft_ns: int | None = None


class CpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the machine's cores the process had within `wall_ns` nanoseconds. `cpu_ns` is the CPU time
    of all its threads (spinning counts as work), `waited_ns` the time for which runnable threads waited for a
    core (schedstat, proc(5)), and `stopped_ns` the time for which a limit of its cgroup stopped it
    (cpu.stat). None stands for what the kernel does not report."""

    wall_ns: int
    cpu_ns: int
    waited_ns: int | None = None
    stopped_ns: int | None = None


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """One `generate` call; its times are in nanoseconds. The tokens' times are None where only start and end
    were stamped.

    Where several ranks share the model, each time is that of the latest rank, and `ranks_ns` holds each
    rank's own stamps since the common start: the stamps of its tokens, where they were taken, and of its end.

    `available_host_bytes` is the memory that the whole machine had available after the call (MemAvailable,
    proc(5)); it also falls where a driver pins memory outside of the process. `load` is the index of the load
    that the call belongs to, and `cpu` is the use of the cores during the call by the process, or by the
    first rank's process.
    """

    sync_policy: SyncPolicy
    first_token_ns: int | None
    next_token_ns: list[int] | None
    end_to_end_ns: int
    tokenize_ns: int | None = None
    detokenize_ns: int | None = None
    ranks_ns: list[list[int]] | None = None
    available_host_bytes: int | None = None
    drafting: Drafting | None = None
    load: int = 0
    cpu: CpuUse | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One load of the subject: its time in seconds, and the memory of the process after it in bytes
    (smaps_rollup, proc(5)): all resident memory, the anonymous part of it, and the part of that in huge
    pages. Weights that are mapped from a file are not anonymous. None stands for what the kernel does not
    report."""

    load_s: float
    resident_bytes: int | None = None
    anonymous_bytes: int | None = None
    huge_page_bytes: int | None = None


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples: the measured iterations, the iterations of the warm-up, which no figure includes, and the
    loads. The first iteration of each load's warm-up is the generation whose tokens and logits are checked;
    its tokens are not stamped."""

    iterations: list[Iteration] = []
    warmup: list[Iteration] = []
    loads: list[Load] = []
