"""The platforms of the guide's table of validated models, and the lookup of a device's platform."""

from functools import cache

import msgspec

from xpubench.catalog import identify_device, table
from xpubench.environment import DeviceFacts

CPU = "CPU"


class Platform(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A platform of the guide's table. A driver's name for one of its GPUs contains one of the texts in
    `reported`."""

    id: str
    title: str
    reported: list[str]


@cache
def platforms() -> tuple[Platform, ...]:
    """All platforms, in the order of the guide's table."""
    return msgspec.convert(table("platforms"), tuple[Platform, ...])


def platform_title(platform: str) -> str:
    """The title of the platform of that id. The id of a device that the guide does not list is its title
    too."""
    return next((one.title for one in platforms() if one.id == platform), platform)


def platform_of(kind: str, device: DeviceFacts | None) -> str | None:
    """The platform of a run on a device of that kind (cpu, xpu): the id of one of the guide's platforms, or
    else the device's own name. None where the name of the GPU is not known. A CPU is none of the guide's
    platforms, not even that of a Core Ultra, and neither is an emulated GPU."""
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
