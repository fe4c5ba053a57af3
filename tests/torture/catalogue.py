"""All tortures, in the order in which `make torture` runs them."""

from typing import Final

from tests.torture import (
    client_crash,
    client_power,
    crowd_in_order,
    full_disk,
    half_open,
    lost_answers,
    power_loss,
    relay_killed,
    vault_disk_errors,
)
from tests.torture.trial import Torture

TORTURES: Final[tuple[Torture, ...]] = (
    Torture(
        "relay_killed",
        "what the relay acknowledged survives kill -9: once, and in order",
        relay_killed.run,
    ),
    Torture(
        "full_disk",
        "a disk that mail filled refuses more, keeps what it has, and empties as mail is fetched",
        full_disk.run,
    ),
    Torture(
        "power_loss",
        "what the relay acknowledged survives a power cut, and only because it waits for the disk",
        power_loss.run,
    ),
    Torture(
        "client_crash",
        "a client that is killed at any call starts clean: what was queued leaves, once",
        client_crash.run,
    ),
    Torture(
        "set_up_crash",
        "a first run that is killed leaves nothing, or what the same command finishes",
        client_crash.run_set_up,
    ),
    Torture(
        "client_power",
        "what was queued survives a power cut, and only because the vault waits for the disk",
        client_power.run,
    ),
    Torture(
        "vault_disk_errors",
        "a failing disk under the vault: one sentence, and nothing claimed that is not saved",
        vault_disk_errors.run,
    ),
    Torture(
        "lost_answers",
        "a connection that ends between a commit and the word of it loses and doubles nothing",
        lost_answers.run,
    ),
    Torture(
        "crowd_in_order",
        "many senders on breaking connections: everything arrives, once and in order",
        crowd_in_order.run,
    ),
    Torture(
        "half_open",
        "a connection that only seems open is noticed, on both sides, and what waits arrives",
        half_open.run,
    ),
)
