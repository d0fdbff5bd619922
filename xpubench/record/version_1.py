"""Records of schema version 1 in the shape of version 2."""

from typing import Any

from xpubench.runtimes.options import AppliedQuantization
from xpubench.runtimes.registry import DEFAULT, options_class

# The fields of a subject that are now options of its runtime.
MOVED = (
    *("runtime", "torch_compile", "ipex_optimize", "autocast", "allow_unoptimized", "shared_memory"),
    "openvino",
)


def from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record of version 1 by their names in version 2; UserError for an unknown runtime.
    Version 1 had one set of fields for the options of all runtimes, dictionaries where version 2 has types,
    and other places for the load time and the peaks of memory of an accuracy run."""
    found = dict(data) | {"schema_version": 2}
    if isinstance(spec := found.get("spec"), dict):
        # The first records, all of latency, had no kind.
        found["spec"] = {"kind": "latency"} | spec
        if isinstance(subject := spec.get("subject"), dict):
            found["spec"]["subject"] = _subject(subject)
    runtime = found.get("runtime") or None
    checks = found.get("checks") or {}
    found["runtime"] = _runtime(runtime) if isinstance(runtime, dict) else None
    if isinstance(found.get("summary"), dict):
        found["summary"] = {"kind": "latency"} | found["summary"]
    elif found.get("accuracy") is not None and found.get("status") == "ok":
        peaks = {name: checks.get(name) for name in ("peak_device_bytes", "peak_host_bytes")}
        found["summary"] = {"kind": "accuracy", "load_s": (runtime or {}).get("load_s")} | peaks
    return found


def _subject(subject: dict[str, Any]) -> dict[str, Any]:
    name = str(subject.get("runtime", DEFAULT))
    kept = {field: value for field, value in subject.items() if field not in MOVED}
    return kept | {"options": {"runtime": name} | options_class(name).from_version_1(subject)}


def _runtime(runtime: dict[str, Any]) -> dict[str, Any] | None:
    # The fixtures of tests may not name it.
    if "name" not in runtime:
        return None
    if not isinstance(quantization := runtime.get("quantization"), dict):
        return runtime
    applied = quantization.get("applied") or {}
    ours = set(AppliedQuantization.__struct_fields__)
    library = {name: value for name, value in applied.items() if name not in ours}
    known = {name: value for name, value in applied.items() if name in ours}
    return runtime | {"quantization": known | {"library": library}}
