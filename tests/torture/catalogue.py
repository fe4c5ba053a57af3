"""All tortures, in the order in which `make torture` runs them."""

from typing import Final

from tests.torture.trial import Torture

TORTURES: Final[tuple[Torture, ...]] = ()
