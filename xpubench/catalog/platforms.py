"""The platforms of the guide's table, and what a run's device belongs to."""

from functools import cache

import msgspec

from xpubench.catalog import identify_device, table
from xpubench.environment import DeviceFacts

CPU = "CPU"


class Platform(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A platform of the guide's table. `reported` is what a driver's name for one of its GPUs contains."""

    id: str
    title: str
    reported: list[str]


@cache
def platforms() -> tuple[Platform, ...]:
    """All of them, in the order of the guide's table."""
    return msgspec.convert(table("platforms"), tuple[Platform, ...])


def platform_title(platform: str) -> str:
    """The title of a platform by its id, which is itself the title of one that the guide does not have."""
    return next((one.title for one in platforms() if one.id == platform), platform)


def platform_of(kind: str, device: DeviceFacts | None) -> str | None:
    """The platform of a run on a device of that kind (cpu, xpu): the id of one of the guide's, or the
    device's own name. None where nobody knows which GPU it was. A processor's own cores are no platform of
    the guide's, even those of a Core Ultra, and neither is an emulated GPU."""
    if (device.kind if device else kind) == "cpu":
        return CPU
    if device is None:
        return None
    if "emulated" in (device.driver or ""):
        return f"{device.name}, emulated"
    name = device.name.lower()
    for one in platforms():
        if any(part.lower() in name for part in one.reported):
            return one.id
    known = identify_device(device.name, device.total_memory_bytes)
    return known.name if known else device.name
