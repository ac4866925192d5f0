"""What the programs were seen to do before is forgotten before they are tried again."""

import pytest
from support import zoo


@pytest.fixture(scope="module", autouse=True)
def forgotten(request: pytest.FixtureRequest) -> None:
    """A program that fails leaves no row of an earlier day."""
    zoo.forget(f"{zoo.PROGRAMS}/{request.path.name}")
