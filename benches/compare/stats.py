"""The arithmetic of the comparison: percentiles, and ratios taken round by round.

Rounds are compared with themselves: both proxies of a ratio were measured seconds apart, so what else the machine was
doing falls out. Nothing here knows what is measured.
"""

import math


def percentile(values, percent):
    """The value below which `percent` % of them lie, linear between neighbours, as numpy's. None without values."""
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not a percentage")
    ordered = sorted(values)
    if not ordered:
        return None
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values):
    """The middle value; None without values."""
    return percentile(values, 50)


def worst_quartile(values):
    """The value that a quarter of them are worse than. More is worse: costs and times."""
    return percentile(values, 75)


def ratios(own, other):
    """`own[round] / other[round]` for each round that both were measured in, and where the other is above 0."""
    return [own[key] / other[key] for key in sorted(own) if other.get(key, 0) > 0]
