"""The checker is checked: every planted bug, and the seed that notices it."""

from collections.abc import Iterable
from typing import Final

from tests.simulation.bugs_of_the_client import CLIENT_BUGS
from tests.simulation.bugs_of_the_relay import RELAY_BUGS
from tests.simulation.laboratory import Broken
from tests.simulation.planting import Bug
from tests.simulation.simulation import Simulation

BUGS: Final = (*RELAY_BUGS, *CLIENT_BUGS)

# Where 0 does not notice. They may move with the product: then any of the first 40 will do.
KNOWN_SEEDS: Final = {
    "commits_every_second_group": 3,
    "acknowledges_before_the_commit": 2,
    "says_submitted_for_a_full_mailbox": 9,
    "takes_a_full_disk_for_done": 60,
    "delivers_out_of_order": 1,
    "pushes_one_more_than_the_window": 9,
    "stalls_when_the_window_was_full": 4,
    "uses_mailbox_numbers_again_after_a_crash": 1,
    "forgets_to_count_what_waits": 1,
    "lets_anybody_log_in": 2,
    "takes_a_post_twice": 13,
    "uses_room_numbers_again_after_a_crash": 1,
    "broadcasts_before_the_commit": 11,
    "hands_a_prekey_out_twice": 1,
    "reads_on_whatever_waits_for_the_disk": 3,
    "pushes_to_who_reads_too_slowly": 45,
    "shows_what_comes_again": 11,
    "commits_the_ratchet_a_turn_too_late": 14,
    "acknowledges_before_its_commit": 1,
    "owes_no_receipt_after_a_crash": 1,
    "takes_any_refusal_for_an_answer": 2,
    "reuses_a_nonce": 6,
    "deletes_private_halves_when_published": 4,
    "encrypts_its_whole_outbox_at_once": 9,
}


def seeds_for(bug: Bug, most: int) -> tuple[int, ...]:
    """The seed that noticed it last time, and then as many as it may take."""
    return (KNOWN_SEEDS.get(bug.name, 0), *range(most))


def seed_that_notices(bug: Bug, seeds: Iterable[int]) -> tuple[int | None, str]:
    """The first seed whose run is broken by the bug, and what it says."""
    for seed in seeds:
        try:
            with bug.planted():
                Simulation(seed).run()
        except Broken as broken:
            return seed, str(broken)
    return None, ""
