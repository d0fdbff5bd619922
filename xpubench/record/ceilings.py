"""The bandwidths and rates of matrix products that were measured on the device."""

import msgspec


class CeilingSample(msgspec.Struct, frozen=True, kw_only=True):
    """A bandwidth ceiling in GB/s (10^9 bytes), and when a process measured it."""

    created: str
    gb_per_s: float


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """Bandwidths in GB/s (10^9 bytes), each from the fastest repeat, with the times of all repeats.

    A copy counts the bytes read and written. A read is a sum. A matrix-vector product counts the matrix, in
    the run's dtype or in float32, whichever is faster, as a CPU without instructions for the dtype is bound
    by computing instead of reading. The ceiling is the largest of the three: where stores first read what
    they overwrite, as on most CPUs, a copy alone would be too low a ceiling for decoding, which only reads.
    The first records have only the copy, and OpenVINO's GPUs and NPUs only the product, which OpenVINO
    computes.

    The `after_` fields are those of a shorter measurement after the timed part, None where the buffers did
    not fit beside the model. `highest` is the most that the device has shown to any process by then; records
    that lack it knew only their own process. Buffers hold random bits where `highest` is known, and ones
    before.
    """

    ceiling_gb_per_s: float
    copy_gb_per_s: float | None = None
    read_gb_per_s: float | None = None
    matvec_gb_per_s: float | None = None
    matvec_dtype: str | None = None
    buffer_bytes: int | None = None
    copy_ns: list[int] = []
    read_ns: list[int] = []
    matvec_ns: list[int] = []
    after_ceiling_gb_per_s: float | None = None
    after_copy_ns: list[int] = []
    after_read_ns: list[int] = []
    after_matvec_ns: list[int] = []
    highest: CeilingSample | None = None

    @property
    def highest_gb_per_s(self) -> float:
        """The ceiling of MBU: the most that the device has shown, or this process where that is not known."""
        return self.highest.gb_per_s if self.highest else self.ceiling_gb_per_s

    @property
    def lowest_gb_per_s(self) -> float:
        """The lower of the ceilings before and after the timed part."""
        return min(self.ceiling_gb_per_s, self.after_ceiling_gb_per_s or self.ceiling_gb_per_s)


class PeakSample(msgspec.Struct, frozen=True, kw_only=True):
    """A rate of matrix products in TFLOP/s (10^12), and when a process measured it."""

    created: str
    tflop_per_s: float


class MatrixPeak(msgspec.Struct, frozen=True, kw_only=True):
    """The rate of matrix products in TFLOP/s (10^12), 2 `size`^3 operations each, in a dtype: the fastest of
    all sizes, with the times of all repeats of the last one. `highest` is the most that the device has shown
    to any process by then; it is None where nothing is kept."""

    tflop_per_s: float
    dtype: str
    size: int
    times_ns: list[int] = []
    highest: PeakSample | None = None

    def shown(self, highest: PeakSample) -> "MatrixPeak":
        """The same with the most that the device has shown."""
        return msgspec.structs.replace(self, highest=highest)

    @property
    def highest_tflop_per_s(self) -> float:
        """The most that the device has shown, or this process where that is not known."""
        return self.highest.tflop_per_s if self.highest else self.tflop_per_s
