"""Which rank this process is of how many, by the variables of the launcher that started it."""

import os
from collections.abc import Mapping

import msgspec

# Of each launcher: the rank, the number of ranks, and both on this host alone. Some set no number of ranks.
VARIABLES: dict[str, tuple[str, str, str, str]] = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "PALS": ("PALS_RANKID", "PALS_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"),
    "Intel MPI or MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher told this process; None is what it did not tell."""

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
    """What the environment says of a launcher; None where none started this process.

    torchrun's plain names are also set by people and by other tools: with an MPI's own beside them, they
    count only where torchrun itself left its mark.
    """
    found = [name for name, names in VARIABLES.items() if variables.get(names[0], "").isdecimal()]
    if "torchrun" in found and len(found) > 1 and "TORCHELASTIC_RUN_ID" not in variables:
        found.remove("torchrun")
    if not found:
        return None
    rank, size, local_rank, local_size = (_number(variables.get(name)) for name in VARIABLES[found[0]])
    return Launch(launcher=found[0], rank=rank or 0, size=size, local_rank=local_rank, local_size=local_size)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def silence() -> None:
    """Silences this rank, whatever writes, because libraries print on every rank; and keeps it from the hub,
    because rank 0 alone downloads, before the others look."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.environ["HF_HUB_OFFLINE"] = "1"
