"""The raw samples of a run: the times of its generations and of its loads."""

from typing import Literal

import msgspec

SyncPolicy = Literal["every_token", "end_to_end"]


class Drafting(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a generation whose tokens are drafted and then accepted or not: the new tokens that each
    step of the main model gave, the prompt's first, and of a draft model the drafted tokens, those that were
    accepted, and the time in either model in nanoseconds (None where the prompt drafts)."""

    step_tokens: list[int]
    drafted: int | None = None
    accepted: int | None = None
    main_ns: int | None = None
    draft_ns: int | None = None


class CpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the process got of the machine's cores within `wall_ns` nanoseconds: the CPU time of all its
    threads (spinning counts as work), the time for which threads that could run waited for a core (schedstat,
    proc(5)), and for which a limit of its cgroup stopped it (cpu.stat). None is what the kernel does not
    tell."""

    wall_ns: int
    cpu_ns: int
    waited_ns: int | None = None
    stopped_ns: int | None = None


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """One `generate` call, in nanoseconds. The tokens' times are None where only start and end were stamped.

    Over ranks, a time is that of the latest rank, and `ranks_ns` holds each rank's own stamps since the
    common start: those of its tokens, where they were taken, and that of its end.

    `available_host_bytes` is the memory that the whole machine had available after the call (MemAvailable,
    proc(5)), which also falls where a driver pins memory outside of the process. `load` is the index of the
    load that it belongs to, and `cpu` what the process, over ranks the first one, got of the cores during the
    call."""

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
    """One load of the subject: its time in seconds, and after it the process's memory in bytes
    (smaps_rollup, proc(5)): all that is resident, the part that belongs to no file, and the part of this in
    huge pages. Weights that are mapped from a file are not in the latter two. None where the kernel does not
    tell."""

    load_s: float
    resident_bytes: int | None = None
    anonymous_bytes: int | None = None
    huge_page_bytes: int | None = None


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples: the measured iterations, those of the warm-up, which no figure includes, and the loads.
    The first of each load's warm-up is the generation that is looked at, whose tokens are not stamped."""

    iterations: list[Iteration] = []
    warmup: list[Iteration] = []
    loads: list[Load] = []
