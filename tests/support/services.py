"""PostgreSQL and Valkey for one test process: real ones, on free places, gone with it."""

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from django_chain.embedded.postgres import Postgres
from django_chain.embedded.valkey import Valkey

TEST_DATABASE = "chain_test"
#: The process that started the servers of the other variables.
_OWNER = "CHAIN_TEST_SERVICES_OF"


@cache
def environment() -> dict[str, str]:
    """DATABASE_URL and REDIS_URL of this process's servers; started once. Given ones are used as they are."""
    given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)}
    if len(given) == 2 and not _they_are_the_controllers():
        return given
    directory = Path(tempfile.mkdtemp(prefix="chain-test-"))
    postgres, valkey = Postgres(directory, fast=True), Valkey(directory)

    def stop() -> None:
        valkey.stop()
        postgres.stop(immediate=True)
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    os.environ[_OWNER] = str(os.getpid())
    return {"DATABASE_URL": postgres.start(), "REDIS_URL": valkey.start()}


def _they_are_the_controllers() -> bool:
    """In a worker of a parallel run: it inherits the variables of the process that distributes the tests."""
    in_worker = "PYTEST_XDIST_WORKER" in os.environ and "_pytest" in sys.modules
    return in_worker and os.environ.get(_OWNER) == str(os.getppid())
