"""The bandwidths and rates of matrix products that were measured on the device."""

import msgspec


class CeilingSample(msgspec.Struct, frozen=True, kw_only=True):
    """A bandwidth ceiling in GB/s (10^9 bytes), and when a process measured it."""

    created: str
    gb_per_s: float


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """Bandwidths in GB/s (10^9 bytes), each from the fastest repeat, with the times of all repeats.

    The bandwidth of a copy counts the bytes read and written. A read sums a buffer. The bandwidth of a
    matrix-vector product counts the bytes of the matrix, in the run's dtype or in float32, whichever is
    faster, because a CPU without instructions for the dtype is compute-bound there. The ceiling is the
    largest of the three: where stores first read what they overwrite, as on most CPUs, a copy alone would be
    too low a ceiling for decoding, which only reads. The first records have only the copy. Records of
    OpenVINO's GPUs and NPUs have only the product, which OpenVINO computes.

    The `after_` fields belong to a shorter measurement after the timed part; they are empty where the buffers
    did not fit beside the model. `highest` is the highest ceiling that any process had measured on the device
    by then. Records without it come from versions that knew only their own process and filled the buffers
    with ones instead of random bits. `threads` is the number of threads of each of these measurements, None
    where a device's own stack measures and in earlier records, whose `after_` fields may have another number.
    """

    ceiling_gb_per_s: float
    threads: int | None = None
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
        """The ceiling of MBU: the highest that any process has measured on the device, or that of this
        process where it is not known."""
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
    """The rate of matrix products in TFLOP/s (10^12), 2 `size`^3 operations each, in a dtype: the rate of the
    fastest size, with the times of all repeats of the last size. `highest` is the highest rate that any
    process had measured on the device by then, None where rates are not kept."""

    tflop_per_s: float
    dtype: str
    size: int
    times_ns: list[int] = []
    highest: PeakSample | None = None

    def shown(self, highest: PeakSample) -> "MatrixPeak":
        """The same peak with `highest` set."""
        return msgspec.structs.replace(self, highest=highest)

    @property
    def highest_tflop_per_s(self) -> float:
        """The highest rate that any process has measured on the device, or that of this process where it is
        not known."""
        return self.highest.tflop_per_s if self.highest else self.tflop_per_s
