"""Measured device cards, each kept as a file in the cache directory."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping

import msgspec

from xpubench.environment import EXPLAINING_VARIABLES, Environment
from xpubench.explanation import DeviceCard
from xpubench.files import cache_directory, write_aside

# Cards of another version were measured in another way, or hold less, and do not count.
VERSION = 2


def chosen_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that `--explain` sets."""
    return {name: value for name, value in variables.items() if name not in EXPLAINING_VARIABLES}


def card_key(environment: Environment, dtype: str, threads: int | None, options: str = "") -> str:
    """The file name of a card: it depends on the device, its driver, the versions, variables and threads, the
    dtype, and the stack's options. The card holds each of them."""
    device = environment.device
    what = [
        VERSION,
        *([device.kind, device.name, device.driver, device.total_memory_bytes] if device else []),
        *(sorted(one.items()) for one in (environment.versions, chosen_variables(environment.variables))),
        threads,
        dtype,
        options,
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def kept_card(key: str) -> DeviceCard | None:
    """The card of that name; None where there is none that can be read."""
    with contextlib.suppress(OSError, RuntimeError, msgspec.DecodeError):
        path = cache_directory() / "cards" / f"{key}.json"
        return msgspec.json.decode(path.read_bytes(), type=DeviceCard)
    return None


def keep_card(key: str, card: DeviceCard) -> None:
    """Keeps the card. Where the cache directory cannot be used, nothing is kept."""
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_directory() / "cards" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, msgspec.json.encode(card))


def all_kept_cards() -> Iterator[DeviceCard]:
    """Every card that can be read, the newest first."""
    with contextlib.suppress(OSError, RuntimeError):
        names = [path.stem for path in (cache_directory() / "cards").glob("*.json")]
        found = [card for name in names if (card := kept_card(name)) is not None]
        yield from sorted(found, key=lambda one: one.created or "", reverse=True)
