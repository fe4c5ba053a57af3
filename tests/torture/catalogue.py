"""All tortures, in the order in which `make torture` runs them."""

from typing import Final

from tests.torture import power_loss, relay_killed
from tests.torture.trial import Torture

TORTURES: Final[tuple[Torture, ...]] = (
    Torture(
        "relay_killed",
        "what the relay acknowledged survives kill -9: once, and in order",
        relay_killed.run,
    ),
    Torture(
        "power_loss",
        "what the relay acknowledged survives a power cut, and only because it waits for the disk",
        power_loss.run,
    ),
)
