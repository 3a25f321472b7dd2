"""What holds for all tests."""

import os

import pytest

# Before NumPy is loaded: threads of its linear algebra wait for each other on busy machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep what is measured here out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def untimed(monkeypatch):
    """Take a made-up time for the measured one."""
    from tests.clock import stop

    stop(monkeypatch)
