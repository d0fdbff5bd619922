"""From next token latencies at several depths to their slope for each position and block."""

from statistics import median

from xpubench.explanation import DepthCurve, DepthPoint

# transformers copies a growing cache at each step, which adds a read and a write to attention's own read.
PASSES_OF_COPIED = 3
# Up to the first multiple of the time that its bytes take, a slope counts as bound by bytes, and from the
# second on as bound by latency.
AS_BYTES, ABOVE_BYTES = 1.5, 2.0


def depth_point(depth: int, rows: list[list[int]]) -> DepthPoint:
    """The point of a depth from the next token latencies of each generation, in ns."""
    pooled = [one for row in rows for one in row]
    return DepthPoint(depth=depth, next_token_ns=rows, next_token_ms=median(pooled) / 1e6)


def curve_of(
    points: list[DepthPoint], *, blocks: int | None, bytes_ns: float | None, copied: bool, method: str
) -> DepthCurve:
    """The curve through the points: the slope is Theil and Sen's over the medians of all generations (Sen
    1968), divided by the number of `blocks`. It is None without blocks or with a single depth. `bytes_ns` is
    the time in ns that reading a position of one block takes at the bandwidth ceiling, and `copied` says that
    the cache is copied at each step."""
    slope, ends = _slope(points, blocks)
    return DepthCurve(
        points=points,
        slope_ns=slope,
        slope_ci95=ends,
        bytes_ns=bytes_ns,
        method=method,
        message=_message(slope, ends, bytes_ns, PASSES_OF_COPIED if copied else 1),
    )


def _slope(points: list[DepthPoint], blocks: int | None) -> tuple[float | None, tuple[float, float] | None]:
    from scipy.stats import theilslopes  # 0.5 s to import

    if not blocks or len({one.depth for one in points}) < 2:
        return None, None
    found = theilslopes(
        [median(row) for one in points for row in one.next_token_ns],
        [one.depth for one in points for _ in one.next_token_ns],
        alpha=0.95,
    )
    ends = float(found.low_slope) / blocks, float(found.high_slope) / blocks
    return float(found.slope) / blocks, ends


def _message(
    slope: float | None, ends: tuple[float, float] | None, bytes_ns: float | None, passes: int
) -> str:
    if slope is None or ends is None:
        return "no slope: it takes two depths and a known architecture"
    known = f"{slope:.1f} ns a position and block ({ends[0]:.1f} to {ends[1]:.1f})"
    if not bytes_ns:
        return known
    known += f", its bytes at the bandwidth take {bytes_ns:.1f}"
    if ends[0] <= 0:
        return f"{known}: no growth with the context that the noise does not explain"
    copies = ", which a growing cache reads twice and writes once" if passes > 1 else ""
    low, high = (end / (passes * bytes_ns) for end in ends)
    if low > ABOVE_BYTES:
        return f"{known}{copies}: attention pays latency rather than bytes"
    if high <= AS_BYTES:
        return f"{known}{copies}: attention pays for its bytes"
    return f"{known}{copies}: bytes and latency cannot be told apart"
