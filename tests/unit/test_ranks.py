"""Each launcher's variables give the same ranks."""

import pytest

from xpubench.distributed.launch import launch_of

LAUNCHERS = {
    "Intel MPI or MPICH": {
        "PMI_RANK": "5",
        "PMI_SIZE": "8",
        "MPI_LOCALRANKID": "1",
        "MPI_LOCALNRANKS": "4",
    },
    "Open MPI": {
        "OMPI_COMM_WORLD_RANK": "5",
        "OMPI_COMM_WORLD_SIZE": "8",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    },
    "PALS": {"PALS_RANKID": "5", "PALS_SIZE": "8", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "4"},
    "torchrun": {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_launcher_is_understood(launcher: str) -> None:
    launch = launch_of(LAUNCHERS[launcher])
    assert launch is not None
    assert (launch.launcher, launch.rank, launch.size) == (launcher, 5, 8)
    assert (launch.local_rank, launch.local_size) == (1, 4)
    assert launch.with_mpi == (launcher != "torchrun")


def test_plain_process_has_no_launcher() -> None:
    assert launch_of({"PATH": "/bin", "RANK": "", "PMI_RANK": "x"}) is None


def test_mpi_wins_over_plain_names_that_people_set() -> None:
    both = LAUNCHERS["torchrun"] | {"RANK": "0"} | LAUNCHERS["Open MPI"]
    launch = launch_of(both)
    assert launch is not None
    assert (launch.launcher, launch.rank) == ("Open MPI", 5)
    under_torchrun = launch_of(both | {"TORCHELASTIC_RUN_ID": "none"})
    assert under_torchrun is not None
    assert under_torchrun.launcher == "torchrun"


def test_pals_may_keep_the_number_of_ranks_to_itself() -> None:
    launch = launch_of({"PALS_RANKID": "3", "PALS_LOCAL_RANKID": "3"})
    assert launch is not None
    assert (launch.rank, launch.size, launch.local_size) == (3, None, None)
