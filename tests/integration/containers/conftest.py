"""The daemon of the tests with containers: one for a worker, with the image in it."""

from collections.abc import Iterator

import pytest
from support.containers.docker import Box, DockerHost
from support.containers.docker import docker_host as start_docker_host
from support.world import World


@pytest.fixture(scope="session")
def docker_host(world: World) -> Iterator[DockerHost]:
    """Docker on the world's host; takes a few seconds to start."""
    with start_docker_host(world) as started:
        yield started


@pytest.fixture(scope="session")
def box(docker_host: DockerHost) -> Iterator[Box]:
    """One container with the documented flags, for all tests that leave it as they found it."""
    health = {"interval": 1_000_000_000}  # ns; the image's is 30 s
    with docker_host.box(healthcheck=health) as running:
        running.wait_ready()
        yield running
