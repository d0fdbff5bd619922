"""What is kept of the surroundings of a run, and what in them is noise."""

from typing import Any

import msgspec
import pytest

from xpubench.environment import DeviceFacts, Environment, HostFacts
from xpubench.measure.environment import (
    capture,
    crowded_hosts,
    installed_versions,
    noise_warnings,
    relevant_variables,
)

QUIET = HostFacts(
    cpu="a CPU",
    logical_cores=8,
    allowed_cores=8,
    governors=["performance"],
    load_average_1min=0.5,
    torch_threads=8,
)
DEVICE = DeviceFacts(kind="cpu", name="a CPU")


def warnings(**changes: Any) -> list[str]:
    return noise_warnings(Environment(host=msgspec.structs.replace(QUIET, **changes)))


def test_a_quiet_machine_has_no_warning() -> None:
    assert warnings() == []
    assert warnings(governors=[]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"load_average_1min": 4.1}, "load average 4.1 on 8 cores"),
        ({"governors": ["performance", "powersave"]}, "governor powersave"),
        ({"allowed_cores": 4, "torch_threads": 4}, "may use 4 of 8 cores"),
        ({"allowed_cores": 4}, "8 threads share 4 allowed cores; set OMP_NUM_THREADS=4"),
        ({"cgroup_cores": 1.5}, "may use 1.5 of 8 cores"),
    ],
)
def test_each_source_of_noise_is_told_once(changes: dict[str, Any], said: str) -> None:
    [warning] = warnings(**changes)
    assert said in warning


def test_a_cgroup_as_large_as_the_cores_is_no_noise() -> None:
    assert warnings(cgroup_cores=8.0) == []


def test_a_load_of_half_the_cores_is_quiet() -> None:
    assert warnings(load_average_1min=4.0) == []


def test_variables_that_steer_the_stacks_are_kept_and_others_are_not() -> None:
    kept = relevant_variables(
        {"OMP_NUM_THREADS": "2", "ZE_AFFINITY_MASK": "0", "LD_PRELOAD": "libtcmalloc.so", "HOME": "/root"}
    )
    assert kept == {"LD_PRELOAD": "libtcmalloc.so", "OMP_NUM_THREADS": "2", "ZE_AFFINITY_MASK": "0"}


SECRETS = (
    "HF_TOKEN",
    "TORCH_TOKEN",
    "ONEAPI_API_KEY",
    "CCL_CLIENT_SECRET",
    "MKL_password",
    "I_MPI_HYDRA_PASSWD",
    "OMP_CREDENTIALS",
    "PYTORCH_AUTH",
)


def test_secrets_never_reach_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    found = capture(DEVICE, ())
    assert found.variables["OMP_PROC_BIND"] == "close"
    assert b"hunter2" not in msgspec.json.encode(found)


def test_a_capture_survives_json_and_tells_the_machine() -> None:
    found = capture(DEVICE, ())
    assert msgspec.json.decode(msgspec.json.encode(found), type=Environment) == found
    assert found.device == DEVICE
    host = found.host
    assert host is not None
    assert 1 <= (host.allowed_cores or 0) <= (host.logical_cores or 0)
    assert 0 < (host.available_memory_bytes or 0) <= (host.total_memory_bytes or 0)
    assert dict(found.facts())["host.cpu"] == host.cpu


def test_only_installed_packages_have_versions() -> None:
    found = installed_versions(("msgspec", "no-such-package"))
    assert list(found) == ["msgspec"]
    assert found["msgspec"]


ALL, HALVES = set(range(8)), (set(range(4)), set(range(4, 8)))


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([("a", 4, ALL), ("a", 4, ALL)], None),
        ([("a", 8, ALL), ("b", 8, ALL)], None),
        ([("a", 4, HALVES[0]), ("a", 4, HALVES[1])], None),
        (
            [("a", 8, ALL), ("a", 8, ALL)],
            "16 threads of 2 ranks share 8 allowed cores of a; set OMP_NUM_THREADS=4",
        ),
        ([("a", 4, HALVES[0]), ("a", 4, HALVES[0])], "share 4 allowed cores of a; set OMP_NUM_THREADS=2"),
        (
            [("a", 1, {0}), ("a", 1, {0})],
            "2 threads of 2 ranks share 1 allowed cores of a; start fewer ranks",
        ),
    ],
)
def test_threads_of_the_ranks_of_a_host(ranks: list[tuple[str, int, set[int]]], words: str | None) -> None:
    found = crowded_hosts(ranks)
    assert found == [] if words is None else words in found[0]
