"""Records of schema version 1 in the shape of version 2."""

from typing import Any

from xpubench.runtimes.registry import DEFAULT, options_class

# What stood in a subject and is now among the options of its runtime.
MOVED = (
    *("runtime", "torch_compile", "ipex_optimize", "autocast", "allow_unoptimized", "shared_memory"),
    "openvino",
)


def from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record of version 1 by their names in version 2; UserError for an unknown runtime.

    Version 1 had one set of fields for the options of all runtimes, open dictionaries where version 2 has
    types, and of an accuracy run the time of the load and the peaks of memory in two other places.
    """
    found = dict(data) | {"schema_version": 2}
    if isinstance(spec := found.get("spec"), dict):
        # The first records were of latency alone and did not say so.
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
    # Records that were made up for tests may not name it.
    if "name" not in runtime:
        return None
    found = dict(runtime)
    if isinstance(quantization := found.get("quantization"), dict):
        found["quantization"] = _quantization(quantization.get("applied") or {})
    return found


def _quantization(applied: dict[str, Any]) -> dict[str, Any]:
    """What was applied; the fields that are not ours are those of a library."""
    ours = {"kernel", "weight_dtype", "compute_dtype", "scale_dtype", "int4", "int8", "high", "refused"}
    library = {name: value for name, value in applied.items() if name not in ours}
    return {name: value for name, value in applied.items() if name in ours} | {"library": library}
