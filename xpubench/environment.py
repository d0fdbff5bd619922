"""What surrounds a run, as its record holds it. Memory is in bytes; None stands for what cannot be known."""

from collections.abc import Iterator
from typing import Any

import msgspec

# With these variables a stack also tells a profiler what it does. They are no choice of the user, and a run
# with them repeats one without.
EXPLAINING_VARIABLES = frozenset({"TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE"})


class HarnessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """This harness: its version, and its git commit, with `-dirty` where files differ from it."""

    version: str
    commit: str | None = None


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The device that a subject ran on."""

    kind: str
    name: str
    driver: str | None = None
    uuid: str | None = None
    total_memory_bytes: int | None = None
    free_memory_bytes: int | None = None


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The machine: its processor, the cores that the process may use (`cgroup_cores` is the processor time,
    in cores, that its cgroup grants), how busy it was before the run, and for which memory the kernel may
    give transparent huge pages: always, madvise (where a program asks for them) or never."""

    cpu: str
    physical_cores: int | None = None
    logical_cores: int | None = None
    allowed_cores: int | None = None
    cgroup_cores: float | None = None
    numa_nodes: int | None = None
    governors: list[str] = []
    turbo: bool | None = None
    load_average_1min: float | None = None
    total_memory_bytes: int | None = None
    available_memory_bytes: int | None = None
    torch_threads: int | None = None
    transparent_huge_pages: str | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Versions of the packages that can change a figure, the device, the machine, and the variables that
    configure the stacks. All are empty for a run that failed before they were captured."""

    harness: HarnessFacts | None = None
    python: str | None = None
    platform: str | None = None
    versions: dict[str, str] = {}
    device: DeviceFacts | None = None
    host: HostFacts | None = None
    variables: dict[str, str] = {}

    def facts(self) -> Iterator[tuple[str, str]]:
        """Each known fact with its dotted path, such as `host.cpu`."""
        rest: list[tuple[str, Any]] = list(msgspec.to_builtins(self).items())
        while rest:
            path, value = rest.pop()
            if isinstance(value, dict):
                rest += [(f"{path}.{name}", part) for name, part in value.items()]
            elif value is not None:
                yield path, str(value)
