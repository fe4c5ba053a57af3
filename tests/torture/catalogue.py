"""All tortures, in the order in which `make torture` runs them."""

from typing import Final

from tests.torture import (
    big_room,
    client_crash,
    client_power,
    crowd_in_order,
    disk_errors,
    full_disk,
    full_mailbox,
    greedy_sender,
    half_open,
    in_the_clear,
    lost_answers,
    power_loss,
    relay_killed,
    slow_readers,
    start_up,
    strangers,
    thread_stress,
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
        "disk_errors",
        "a disk that fails at any call stops the relay or its start, and nothing is lost",
        disk_errors.run,
    ),
    Torture(
        "start_up",
        "with a full mailbox and after kill -9 the relay serves within 5 s, its database whole",
        start_up.run,
    ),
    Torture(
        "in_the_clear",
        "what two clients said, and their keys, are written down nowhere that others can read",
        in_the_clear.run,
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
    Torture(
        "strangers",
        "whatever strangers do, an honest client is served within 2 s, and memory stays bounded",
        strangers.run,
    ),
    Torture(
        "slow_readers",
        "readers that stop cost nobody anything, and have everything when they read on",
        slow_readers.run,
    ),
    Torture(
        "greedy_sender",
        "who sends as fast as it can is told to wait, and slows nobody else down",
        greedy_sender.run,
    ),
    Torture(
        "full_mailbox",
        "a mailbox at its quota: senders are told, nobody else notices, and it can be emptied",
        full_mailbox.run,
    ),
    Torture(
        "big_room",
        "in a room of thousands everyone hears soon, and coming and going costs no crowd",
        big_room.run,
    ),
    Torture(
        "thread_stress",
        "threads that change places all the time, stop and come back: nothing lost, nothing left",
        thread_stress.run,
    ),
)
