"""What one person, or one address, may ask of the relay. All of it in memory alone.

Buckets go by a clock that nobody sets, daily quotas by the date.
"""

import ipaddress
from collections.abc import Hashable
from functools import lru_cache
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

# A provider gives every customer a /64 or more: one stranger, whatever the last 64 bits say.
_IPV6_PREFIX_BITS: Final = 64
_DAY_MS: Final = 86_400_000


class TokenBuckets(Generic[Key]):
    """A token bucket for each key, full at first.

    A bucket that has filled up again is the same as none, so that `prune` forgets it.
    """

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self.burst = burst
        self._buckets: dict[Key, tuple[float, int]] = {}

    def take(self, key: Key, cost: float, now_ms: int) -> int:
        """Take `cost` tokens: 0; or take none and return how many ms to wait, at least 1."""
        burst = self.burst
        tokens, then_ms = self._buckets.get(key, (burst, now_ms))
        tokens += (now_ms - then_ms) * self.per_second / 1000
        if tokens > burst:
            tokens = burst
        if cost > burst:
            cost = burst  # what costs more than a full bucket holds waits for a full one
        if tokens < cost:
            self._buckets[key] = (tokens, now_ms)
            return int((cost - tokens) * 1000 / self.per_second) + 1
        self._buckets[key] = (tokens - cost, now_ms)
        return 0

    def prune(self, now_ms: int) -> None:
        """Forget the full ones."""
        self._buckets = {
            key: (tokens, then_ms)
            for key, (tokens, then_ms) in self._buckets.items()
            if tokens + (now_ms - then_ms) * self.per_second / 1000 < self.burst
        }

    def __len__(self) -> int:
        return len(self._buckets)


class DailyQuota(Generic[Key]):
    """A number of uses for each key and UTC day."""

    def __init__(self, per_day: int) -> None:
        self.per_day = per_day
        self._day = 0
        self._used: dict[Key, int] = {}

    def take(self, key: Key, now_ms: int) -> bool:
        """Whether there was one left."""
        day = now_ms // _DAY_MS
        if day != self._day:
            self._day, self._used = day, {}
        used = self._used.get(key, 0)
        if used >= self.per_day:
            return False
        self._used[key] = used + 1
        return True

    def give_back(self, key: Key) -> None:
        """What was taken was not used after all. Unused keys take no memory."""
        used = self._used.get(key, 0)
        if used > 1:
            self._used[key] = used - 1
        else:
            self._used.pop(key, None)


@lru_cache(maxsize=4096)
def address_group(address: str) -> str:
    """Whom an address stands for: an IPv4 address itself, of an IPv6 address its /64."""
    if ":" not in address:
        return address  # IPv4; under a flood this is asked for each connection
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX_BITS), strict=False))
