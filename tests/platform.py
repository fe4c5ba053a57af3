"""What a platform may lack. Nothing else is a reason to skip a test."""

import os
from typing import NoReturn

import pytest


def platform_lacks(what: str) -> NoReturn:
    """Skip, naming what is missing; where CI is set, which must show everything, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"this machine lacks {what}, and CI must show everything")
    pytest.skip(f"this machine lacks {what}")
