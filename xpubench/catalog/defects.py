"""Known defects of stacks: which runs meet one, and what comes of it."""

from functools import cache
from typing import Literal

import msgspec

from xpubench.catalog import table

GPUS = {True: "GPUs with 2D block loads", False: "GPUs without 2D block loads", None: ""}


class Defect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A known defect of a runtime's stack, and the runs that meet it.

    A run meets it where its model type is listed and where every condition among `int4`, `ranks` (several
    of them), `beams`, `cache` and `block_loads_2d` (the GPU has 2D block loads) holds; None is no
    condition.
    """

    id: str
    runtime: str
    device: str
    model_types: tuple[str, ...]
    effect: Literal["wrong", "fails"]
    text: str
    source: str
    int4: bool | None = None
    ranks: bool | None = None
    beams: bool | None = None
    cache: str | None = None
    block_loads_2d: bool | None = None

    @property
    def where(self) -> str:
        """The conditions of the runs that meet the defect, in words."""
        parts = [
            "INT4" if self.int4 else "",
            "several ranks" if self.ranks else "",
            "beams" if self.beams else "",
            f"{self.cache} cache" if self.cache else "",
            GPUS[self.block_loads_2d],
        ]
        return ", ".join([" ".join(self.model_types), *filter(None, parts)])


@cache
def defects() -> tuple[Defect, ...]:
    """All known defects, in the catalog's order."""
    return msgspec.convert(table("defects"), tuple[Defect, ...])


def defects_of(
    runtime: str | None,
    device: str,
    model_type: str | None,
    *,
    int4: bool,
    ranks: int,
    num_beams: int | None = None,
    cache: str | None = None,
    block_loads_2d: bool | None = None,
) -> list[Defect]:
    """The defects that a run meets. `num_beams` and `cache` are None where they are not decided yet;
    defects that depend on them are then left out. `block_loads_2d` is None where nobody knows whether
    the GPU has them; defects of both kinds of GPU are then included."""
    beams = None if num_beams is None else num_beams > 1
    return [
        one
        for one in defects()
        if (one.runtime, one.device) == (runtime, device)
        and model_type in one.model_types
        and one.int4 in (None, int4)
        and one.ranks in (None, ranks > 1)
        and one.beams in (None, beams)
        and one.cache in (None, cache)
        and (block_loads_2d is None or one.block_loads_2d in (None, block_loads_2d))
    ]
