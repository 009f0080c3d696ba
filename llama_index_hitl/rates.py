"""How often something happens, and how far that can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution: 95 % lie within plus and minus it."""


@dataclass(frozen=True)
class Rate:
    """How many out of how many.

    Attributes:
        count: How many, from 0.
        of: Out of how many, at least 1 and at least `count`.

    Raises:
        ValueError: They are out of range.

    Example:
        >>> rate = Rate(3, 50)
        >>> print(rate)
        6.0% (95% interval: 2.1% to 16.2%)
    """

    count: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.of or self.of < 1:
            raise ValueError(f"{self.count} of {self.of} is no rate")

    @property
    def share(self) -> float:
        """The share, from 0 to 1."""
        return self.count / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson score interval of 95 %, from 0 to 1: where the true share lies.

        If the ones that were counted are a random sample, then 95 of 100 intervals that are made
        like this hold the share that all of them have. It is right for small counts, and for shares
        near 0 and 1, where the common interval of plus and minus two standard errors is not: none
        wrong of ten does not mean that none ever is.

        E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
        Journal of the American Statistical Association 22 (1927), pages 209 to 212; recommended for
        small samples by L. D. Brown, T. T. Cai and A. DasGupta, "Interval estimation for a
        binomial proportion", Statistical Science 16 (2001), pages 101 to 133.
        """
        square, share = Z_95**2, self.share
        scale = 1 + square / self.of
        centre = (share + square / (2 * self.of)) / scale
        spread = share * (1 - share) / self.of + square / (4 * self.of**2)
        half = Z_95 * math.sqrt(spread) / scale
        # Rounding must not put the bounds of none and of all beside 0 and 1.
        low = 0.0 if self.count == 0 else max(0.0, centre - half)
        high = 1.0 if self.count == self.of else min(1.0, centre + half)
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} (95% interval: {low:.1%} to {high:.1%})"
