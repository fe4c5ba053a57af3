"""Token buckets, daily quotas, and whom an address stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltline.server.codes import code_hash, new_code
from saltline.server.limits import DailyQuota, TokenBuckets, address_group

DAY_MS = 86_400_000


def test_a_bucket_gives_a_burst_and_then_its_rate() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(per_second=10, burst=3)
    assert [buckets.take("ada", 1, 0) for _ in range(4)] == [0, 0, 0, 101]
    assert buckets.take("bob", 1, 0) == 0
    assert buckets.take("ada", 1, 50) > 0
    assert buckets.take("ada", 1, 101) == 0
    assert buckets.take("ada", 1, 101) > 0


def test_waiting_as_long_as_told_is_enough() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(per_second=0.3, burst=2)
    now_ms = 0
    for _ in range(20):
        wait_ms = buckets.take("ada", 1, now_ms)
        if wait_ms:
            now_ms += wait_ms
            assert buckets.take("ada", 1, now_ms) == 0


def test_what_is_refused_costs_nothing() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(per_second=1, burst=3)
    assert buckets.take("ada", 2, 0) == 0
    assert buckets.take("ada", 2, 0) > 0
    assert buckets.take("ada", 1, 0) == 0


def test_full_buckets_take_no_memory() -> None:
    buckets: TokenBuckets[int] = TokenBuckets(per_second=1, burst=10)
    for key in range(100):
        buckets.take(key, 1 if key % 2 else 5, 0)
    buckets.prune(1_000)
    assert len(buckets) == 50
    buckets.prune(5_000)
    assert len(buckets) == 0


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 5)), max_size=50),
    st.integers(1, 20),
    st.integers(1, 50),
)
def test_nobody_gets_more_than_burst_and_rate(
    steps: list[tuple[int, int]], burst: int, per_second: int
) -> None:
    buckets: TokenBuckets[str] = TokenBuckets(per_second, burst)
    now_ms = taken = 0
    for wait_ms, cost in steps:
        now_ms += wait_ms
        if cost <= burst and buckets.take("ada", cost, now_ms) == 0:
            taken += cost
    assert taken <= burst + now_ms * per_second / 1000 + 1e-6


def test_a_daily_quota_begins_anew_each_day() -> None:
    quota: DailyQuota[str] = DailyQuota(2)
    noon = DAY_MS // 2
    assert [quota.take("ada", noon) for _ in range(3)] == [True, True, False]
    assert quota.take("bob", noon)
    assert not quota.take("ada", DAY_MS - 1)
    assert quota.take("ada", DAY_MS)


def test_what_is_given_back_can_be_taken_again() -> None:
    quota: DailyQuota[str] = DailyQuota(1)
    quota.take("ada", 0)
    quota.give_back("ada")
    quota.give_back("ada")
    assert [quota.take("ada", 0), quota.take("ada", 0)] == [True, False]


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_an_address_stands_for_whom(address: str, group: str) -> None:
    assert address_group(address) == group


def test_a_code_has_120_bits_and_is_read_as_it_is_spoken() -> None:
    code = new_code(lambda size: bytes(range(200, 200 + size)))
    assert len(code.replace("-", "")) * 5 == 120
    assert code == new_code(lambda size: bytes(range(200, 200 + size)))
    spoken = code.upper().replace("-", " ").replace("0", "O").replace("1", "I")
    assert code_hash(spoken) == code_hash(code)
    assert code_hash(code[:-1]) != code_hash(code)


@given(st.text(max_size=64))
def test_any_text_has_a_hash(text: str) -> None:
    assert len(code_hash(text)) == 32
