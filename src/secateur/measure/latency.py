"""Time, measured in pairs.

One timing of A and a later one of B compare two moments of the machine as much as two models.
So A and B take turns in short rounds, the order alternates, and each round gives one ratio:
load that lasts longer than a round falls out of it. The interval of the ratio is that of the
median by order statistics (a binomial count of rounds above and below): no assumption about
the distribution, nothing drawn at random.

Rounds take noise out and not what comes with loading: two sessions of one file lie elsewhere in
memory and differ by a percent or so, the same way in every round. Only further sessions show that.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from secateur.errors import InputError

Run = Callable[[], Any]
Clock = Callable[[], float]

CONFIDENCE = 0.99
LEAST_GAIN = 1.01  # two sessions of one file differ by about as much
SESSIONS = _LEAST_ROUNDS = 8  # the fewest whose extremes bound the median with 99 %
_LEAST_BLOCK = 2e-4  # seconds: shorter calls are timed several at once, above the clock's grain
_WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median over rounds, and its quartiles ``low`` and ``high``."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Spread:
    """A median and the interval that holds the true one with at least ``confidence``."""

    median: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class PairedTiming:
    """Two functions timed in turn.

    ratio: time of a / time of b, per round; above 1 where b is faster.
    """

    a: Timing
    b: Timing
    ratio: Spread

    @property
    def faster(self) -> bool:
        """Whether b is faster than a here: the whole interval of the ratio lies above 1.

        Of these two sessions, and not of the models that were loaded in them.
        """
        return self.ratio.low > 1

    @property
    def slower(self) -> bool:
        """Whether b is slower than a here: the whole interval of the ratio lies below 1."""
        return self.ratio.high < 1


def time_pair(
    run_a: Run,
    run_b: Run,
    *,
    seconds: float = 2.0,
    rounds: int = 20,
    clock: Clock = time.perf_counter,
) -> PairedTiming:
    """Time two functions in turn, A B, B A, A B, ... and compare them round by round.

    seconds: about how long to measure, after the warm-up; every round makes at least one call
             of each, so slow functions take longer, with fewer rounds but 8 at least.
    rounds:  at most this many, 8 or more. clock: seconds, for tests.
    Errors: InputError for seconds or rounds that make no sense.
    """
    _check(seconds, rounds)
    blocks = [_Block(run_a, clock), _Block(run_b, clock)]
    estimates = [block.warm_up(seconds / 10) for block in blocks]
    rounds = _affordable(rounds, seconds, sum(estimates))
    slot = seconds / (2 * rounds)
    times: tuple[list[float], list[float]] = ([], [])
    with _no_collection():
        for number in range(rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                times[side].append(blocks[side].measure(slot))
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return PairedTiming(_timing(times[0]), _timing(times[1]), median_interval(ratios))


def time_one(
    run: Run, *, seconds: float = 1.0, rounds: int = 20, clock: Clock = time.perf_counter
) -> Timing:
    """Time one function; to compare two, use time_pair. Arguments and errors are as there."""
    _check(seconds, rounds)
    block = _Block(run, clock)
    rounds = _affordable(rounds, seconds, block.warm_up(seconds / 10))
    with _no_collection():
        return _timing([block.measure(seconds / rounds) for _ in range(rounds)])


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Spread:
    """The median with its distribution-free interval.

    With n values sorted, the true median lies between the k-th smallest and the k-th largest
    except with probability 2 P(Binomial(n, 1/2) < k); k is the largest that keeps confidence.
    Errors: InputError for too few values to reach it.
    """
    ordered, count = sorted(values), len(values)
    tail, k = 0.0, 0
    while k < count:
        tail += math.comb(count, k) / 2**count
        if 2 * tail > 1 - confidence:
            break
        k += 1
    if k == 0:
        raise InputError(
            f"{count} values cannot bound a median with {confidence:.0%} confidence; "
            "measure more rounds"
        )
    return Spread(statistics.median(ordered), ordered[k - 1], ordered[count - k], confidence)


def is_gain(median: float, low: float) -> bool:
    """Whether a speedup can be told from none: its interval lies above 1, and its median at least
    as far above as sessions of one file differ."""
    return low > 1 and median >= LEAST_GAIN


def over_sessions(first: Spread, others: Sequence[float]) -> Spread:
    """A ratio over several sessions, of which the first was timed in rounds.

    From ``SESSIONS`` on it is the median of them with its interval; fewer span at least what they
    and the rounds of the first saw, which bounds nothing.
    """
    ratios = [first.median, *others]
    if len(ratios) >= SESSIONS:
        return median_interval(ratios)
    low, high = min(first.low, *ratios), max(first.high, *ratios)
    return Spread(statistics.median(ratios), low, high, 0.0)


class _Block:
    """A function, and how many calls of it are timed at once."""

    def __init__(self, run: Run, clock: Clock) -> None:
        self._run = run
        self._clock = clock
        self._calls = 1

    def warm_up(self, seconds: float) -> float:
        """Call until things are settled; returns the seconds of one call."""
        start = self._clock()
        durations = []
        while len(durations) < _WARM_UP_CALLS or self._clock() - start < seconds:
            durations.append(self._block() / self._calls)
            if durations[-1] * self._calls < _LEAST_BLOCK:
                self._calls *= 2
        return durations[-1] if len(durations) < 4 else statistics.median(durations[1:])

    def measure(self, slot: float) -> float:
        """Median seconds per call over about ``slot`` seconds, one block at least."""
        start = self._clock()
        durations = [self._block()]
        while self._clock() - start + durations[-1] <= slot:
            durations.append(self._block())
        return statistics.median(durations) / self._calls

    def _block(self) -> float:
        run, synchronise = self._run, _synchroniser()
        synchronise()
        start = self._clock()
        for _ in range(self._calls):
            run()
        synchronise()
        return self._clock() - start


def _synchroniser() -> Callable[[], None]:
    """Waits for the GPU, where this process has used one; kernels run on after a call returns."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.synchronize
    return _nothing


def _nothing() -> None:
    return None


def _affordable(rounds: int, seconds: float, one_round: float) -> int:
    if one_round <= 0:
        return rounds
    return min(rounds, max(_LEAST_ROUNDS, int(seconds / one_round)))


def _timing(times: Sequence[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high, len(times))


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected meanwhile: a collection belongs to neither side."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check(seconds: float, rounds: int) -> None:
    if not seconds > 0:
        raise InputError(f"seconds is {seconds}; expected more than 0")
    if rounds < _LEAST_ROUNDS:
        raise InputError(f"rounds is {rounds}; expected {_LEAST_ROUNDS} or more")
