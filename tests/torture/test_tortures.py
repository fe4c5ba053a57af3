"""Each torture as short as the suite can bear; `make torture` runs them at length."""

from pathlib import Path

import pytest

from tests.platform import platform_lacks
from tests.torture.catalogue import TORTURES
from tests.torture.trial import Lacking, Scale, Torture


@pytest.mark.parametrize("torture", TORTURES, ids=lambda torture: torture.name)
def test_the_promise_holds(torture: Torture, tmp_path: Path) -> None:
    try:
        figures = torture.run(Scale.QUICK, tmp_path)
    except Lacking as lacking:
        platform_lacks(str(lacking))
    assert figures
