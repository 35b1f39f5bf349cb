"""What is simulated: pure functions from a seed to sums, and the statistics of such sums.

A simulation draws its samples from a generator of its own, started from its seed, so a batch gives the same
sums on any machine, at any attempt, in any order. `Sums` adds batches up and turns them into a mean and the
half-width of its confidence interval.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

Batch = tuple[int, float, float, float, float, float]
"""What a batch comes to: its number of samples, and the sums of x, x², y, y² and xy."""


class Estimate(NamedTuple):
    """A mean and the half-width of its confidence interval."""

    mean: float
    margin: float


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums over many samples of a variable x, and of a control y whose mean may be known exactly."""

    n: int = 0
    x: float = 0.0
    xx: float = 0.0
    y: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> Sums:
        """Add batches up. `fsum` rounds once, at the end, so the order of arrival leaves no trace."""
        columns = list(zip(*batches, strict=True))
        return cls(sum(columns[0]), *(math.fsum(column) for column in columns[1:]))

    def plus(self, batch: Batch) -> Sums:
        """These sums and one batch more; cheap, for the picture of a run that goes on."""
        n, x, xx, y, yy, xy = batch
        return Sums(self.n + n, self.x + x, self.xx + xx, self.y + y, self.yy + yy, self.xy + xy)

    def estimate(self, confidence: float) -> Estimate:
        """The mean of x, from x alone."""
        return self._interval(self.x / self.n, self._variance(self.xx, self.x, self.x), confidence)

    def controlled_estimate(self, control_mean: float, confidence: float) -> Estimate:
        """The mean of x, corrected by how far y's mean is from the `control_mean` that it should be.

        The method of control variates (see P. Glasserman, "Monte Carlo Methods in Financial Engineering",
        4.1): as far as the two are correlated, y's error tells x's.
        """
        of_x = self._variance(self.xx, self.x, self.x)
        of_y = self._variance(self.yy, self.y, self.y)
        both = self._variance(self.xy, self.x, self.y)
        slope = both / of_y if of_y else 0.0
        mean = self.x / self.n - slope * (self.y / self.n - control_mean)
        return self._interval(mean, max(of_x - slope * both, 0.0), confidence)

    def control_estimate(self, confidence: float) -> Estimate:
        """The mean of y; comparing it with the exact one checks the simulation."""
        return self._interval(self.y / self.n, self._variance(self.yy, self.y, self.y), confidence)

    def _variance(self, product: float, first: float, second: float) -> float:
        return (product - first * second / self.n) / (self.n - 1) if self.n > 1 else 0.0

    def _interval(self, mean: float, variance: float, confidence: float) -> Estimate:
        quantile = NormalDist().inv_cdf((1 + confidence) / 2)
        return Estimate(mean, quantile * math.sqrt(max(variance, 0.0) / self.n))


class AsianCall(NamedTuple):
    """A call on the average of `steps` equally spaced prices of a share, as Black and Scholes see it.

    Prices are in one currency, `years` is the time to expiry, `rate` and `volatility` are per year.
    """

    spot: float = 100.0
    strike: float = 100.0
    rate: float = 0.05
    volatility: float = 0.2
    years: float = 1.0
    steps: int = 50

    def price_of_geometric_average(self) -> float:
        """The exact price if the average were the geometric one (A. Kemna and A. Vorst, 1990).

        The logarithm of that average is normal, so the price has the form of Black and Scholes'.
        """
        n, drift = self.steps, self.rate - self.volatility**2 / 2
        mean = math.log(self.spot) + drift * self.years * (n + 1) / (2 * n)
        deviation = self.volatility * math.sqrt(self.years * (n + 1) * (2 * n + 1) / (6 * n * n))
        d1 = (mean - math.log(self.strike)) / deviation + deviation
        normal = NormalDist().cdf
        forward = math.exp(mean + deviation**2 / 2) * normal(d1)
        return math.exp(-self.rate * self.years) * (forward - self.strike * normal(d1 - deviation))


def simulate_pi(seed: str, samples: int) -> Batch:
    """Throw `samples` darts at a square; x is 4 for a hit in the circle, so its mean is pi."""
    uniform = random.Random(seed).random
    hits = sum(uniform() ** 2 + uniform() ** 2 < 1 for _ in range(samples))
    return samples, 4.0 * hits, 16.0 * hits, 0.0, 0.0, 0.0


def simulate_asian(option: AsianCall, seed: str, samples: int) -> Batch:
    """Walk `samples` paths of the price.

    x is the discounted payoff on the arithmetic average, y the one on the geometric average.
    """
    gauss, exp, log_spot = random.Random(seed).gauss, math.exp, math.log(option.spot)
    step = option.years / option.steps
    drift = (option.rate - option.volatility**2 / 2) * step
    shock = option.volatility * math.sqrt(step)
    discount = math.exp(-option.rate * option.years)
    x = xx = y = yy = xy = 0.0
    for _ in range(samples):
        log_price, total, log_total = log_spot, 0.0, 0.0
        for _ in range(option.steps):
            log_price += drift + shock * gauss(0.0, 1.0)
            total += exp(log_price)
            log_total += log_price
        arithmetic = discount * max(total / option.steps - option.strike, 0.0)
        geometric = discount * max(exp(log_total / option.steps) - option.strike, 0.0)
        x, xx = x + arithmetic, xx + arithmetic * arithmetic
        y, yy = y + geometric, yy + geometric * geometric
        xy += arithmetic * geometric
    return samples, x, xx, y, yy, xy
