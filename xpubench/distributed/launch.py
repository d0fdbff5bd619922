"""Which rank this process is of how many, by the variables of the launcher that started it."""

import os
from collections.abc import Mapping

import msgspec

INSTALL = (
    "pip install '.[deepspeed]' brings DeepSpeed, mpi4py and mpirun; on Intel GPUs, whose PyTorch brings "
    "mpirun, pip install deepspeed mpi4py"
)
# Each launcher's variables for the rank, the number of ranks, and both counted on this host alone. Some
# launchers do not set the number of ranks.
VARIABLES: dict[str, tuple[str, str, str, str]] = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": (
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        *("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ),
    "PALS": ("PALS_RANKID", "PALS_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"),
    "Intel MPI or MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher set for this process; None where it did not set the value."""

    launcher: str
    rank: int
    size: int | None
    local_rank: int | None
    local_size: int | None

    @property
    def with_mpi(self) -> bool:
        """Whether the ranks can meet through MPI."""
        return self.launcher != "torchrun"


def launch_of(variables: Mapping[str, str]) -> Launch | None:
    """The launcher by the environment; None where none started this process.

    People and other tools set torchrun's plain names too. Beside an MPI's own variables they count only where
    torchrun also set its run id.
    """
    found = [name for name, names in VARIABLES.items() if variables.get(names[0], "").isdecimal()]
    if "torchrun" in found and len(found) > 1 and "TORCHELASTIC_RUN_ID" not in variables:
        found.remove("torchrun")
    if not found:
        return None
    texts = (variables.get(name, "") for name in VARIABLES[found[0]])
    rank, size, local_rank, local_size = (int(text) if text.isdecimal() else None for text in texts)
    return Launch(launcher=found[0], rank=rank or 0, size=size, local_rank=local_rank, local_size=local_size)


def silence() -> None:
    """Drops all output of this rank, because libraries print on every rank, and keeps it from the hub,
    because rank 0 downloads everything before the other ranks look for it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.environ["HF_HUB_OFFLINE"] = "1"
