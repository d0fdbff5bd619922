"""The known defects that a run meets in its runtime's stack."""

from xpubench.catalog.defects import Defect, defects_of
from xpubench.spec import Subject, Workload


def known_defects(
    subject: Subject,
    model_type: str | None,
    workload: Workload | None,
    block_loads_2d: bool | None = None,
) -> list[Defect]:
    """The known defects that a run of the subject meets. Without a workload, defects that depend on beams
    or on the cache are left out. `block_loads_2d` is None where nobody knows whether the GPU has them;
    defects of both kinds of GPU are then included."""
    return defects_of(
        subject.options.defects_as,
        subject.device,
        model_type,
        int4=subject.quantization is not None,
        ranks=subject.tp_size,
        num_beams=None if workload is None else workload.num_beams,
        cache=None if workload is None else workload.cache,
        block_loads_2d=block_loads_2d,
    )
