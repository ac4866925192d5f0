"""What the programs were seen to do before is forgotten before they are tried again."""

import pytest
from support import zoo


@pytest.fixture(scope="session")
def forgotten_files() -> set[str]:
    """Those whose earlier rows have gone; pytest leaves a file and comes back to it."""
    return set()


@pytest.fixture(scope="module", autouse=True)
def forgotten(request: pytest.FixtureRequest, forgotten_files: set[str]) -> None:
    """A program that fails leaves no row of an earlier day."""
    if request.path.name not in forgotten_files:
        forgotten_files.add(request.path.name)
        zoo.forget(f"{zoo.PROGRAMS}/{request.path.name}")
