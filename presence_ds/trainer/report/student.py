"""Student's t."""

import math


def coverage(t: float, freedom: int) -> float:
    """Probability that |T| ≤ ``t``, with so many degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for number in range(freedom % 2 + 1, freedom, 2):
        total += term
        term *= number / (number + 1) * cosine**2
    return 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total


def critical(freedom: int, probability: float = 0.95) -> float:
    """t with which an interval of ± t standard errors has that ``probability``."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if coverage(middle, freedom) < probability else (low, middle)
    return (low + high) / 2
