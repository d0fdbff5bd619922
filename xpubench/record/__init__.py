"""One run's outcome as versioned JSON: the types, and the readers of every schema version."""

from xpubench.record.accuracy import Accuracy, Decision, Divergence, Item, ReferenceLimits
from xpubench.record.ceilings import Bandwidth, CeilingSample, MatrixPeak, PeakSample
from xpubench.record.checks import (
    Collectives,
    NeighbourChecks,
    OperatorChecks,
    OperatorResult,
    RunChecks,
    TokenChecks,
)
from xpubench.record.reading import READERS, decode, decode_all, encode, read_record, read_records
from xpubench.record.record import SCHEMA_VERSION, Failure, Output, Record, WeightsFingerprint, now
from xpubench.record.samples import CpuUse, Drafting, Iteration, Load, Samples, SyncPolicy
from xpubench.record.summary import AccuracySummary, LatencySummary, SequentialInterval, Statistic

__all__ = [
    "READERS",
    "SCHEMA_VERSION",
    "Accuracy",
    "AccuracySummary",
    "Bandwidth",
    "CeilingSample",
    "Collectives",
    "CpuUse",
    "Decision",
    "Divergence",
    "Drafting",
    "Failure",
    "Item",
    "Iteration",
    "LatencySummary",
    "Load",
    "MatrixPeak",
    "NeighbourChecks",
    "OperatorChecks",
    "OperatorResult",
    "Output",
    "PeakSample",
    "Record",
    "ReferenceLimits",
    "RunChecks",
    "Samples",
    "SequentialInterval",
    "Statistic",
    "SyncPolicy",
    "TokenChecks",
    "WeightsFingerprint",
    "decode",
    "decode_all",
    "encode",
    "now",
    "read_record",
    "read_records",
]
