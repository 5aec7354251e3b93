"""All services of one DATA_DIR: started together, announced to other commands, stopped together.

A variable of the environment (DATABASE_URL, REDIS_URL, OPENAI_API_KEY or OPENAI_BASE_URL) takes the place of the
embedded part, which then is not started.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from django_chain.embedded import model
from django_chain.embedded.model_server import ModelServer
from django_chain.embedded.places import Places
from django_chain.embedded.postgres import Postgres
from django_chain.embedded.state import SERVICES_FILE
from django_chain.embedded.valkey import Valkey


class Service(Protocol):
    """What runs until it is stopped."""

    @property
    def running(self) -> bool: ...
    def start(self) -> str: ...
    def stop(self) -> None: ...
    def log_tail(self) -> str: ...


class Stack:
    """The services that `environ` doesn't name. A context manager: inside, all of them run.

    `report(name, seconds)` is called as each is ready. Raises Misconfigured or StartError; what had started is stopped
    then. The caller holds the DATA_DIR (see lock).
    """

    def __init__(
        self, data_dir: Path, *, environ: Mapping[str, str], report: Callable[[str, float], None] = lambda *_: None
    ) -> None:
        self._root = Places(data_dir).root
        self._environ = environ
        self._report = report
        self._starting: list[Future[None]] = []
        self.services: dict[str, Service] = {}
        #: Variables for programs that use the services.
        self.variables: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def announce(self, **more: str) -> None:
        """Write the variables, and `more`, where other commands of this DATA_DIR find them (readable by us alone)."""
        self.variables |= more
        path = self._root / SERVICES_FILE
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(self.variables, file, indent=1)
        draft.replace(path)

    def stop(self) -> None:
        """Stop everything; safe to call twice."""
        (self._root / SERVICES_FILE).unlink(missing_ok=True)
        # What is still starting (we may have been interrupted) must be up before it can be stopped.
        wait(self._starting)
        services = list(self.services.values())
        with ThreadPoolExecutor(len(services) or 1) as pool:
            list(pool.map(lambda service: service.stop(), services))

    def _start(self) -> None:
        given = {name for name in ("DATABASE_URL", "REDIS_URL") if self._environ.get(name)}
        if "DATABASE_URL" not in given:
            self.services["PostgreSQL"] = Postgres(self._root)
        if "REDIS_URL" not in given:
            self.services["Valkey"] = Valkey(self._root)
        if not (self._environ.get("OPENAI_API_KEY") or self._environ.get("OPENAI_BASE_URL")):
            self.services["model"] = ModelServer(self._root)
        # A key stays in the environment that named it; the two addresses are needed by other commands as well.
        self.variables = {name: self._environ[name] for name in given}
        with ThreadPoolExecutor(3) as pool:
            self._starting = [pool.submit(self._start_one, name, service) for name, service in self.services.items()]
        for outcome in self._starting:
            outcome.result()

    def _start_one(self, name: str, service: Service) -> None:
        begun = time.monotonic()
        url = service.start()
        match service:
            case Postgres():
                self.variables["DATABASE_URL"] = url
            case Valkey():
                self.variables["REDIS_URL"] = url
            case ModelServer():
                self.variables |= {
                    "OPENAI_BASE_URL": url,
                    "OPENAI_API_KEY": service.key,
                    "OPENAI_MODEL": model.NAME,
                    "OPENAI_CONTEXT_TOKENS": str(model.CONTEXT),
                }
        self._report(name, time.monotonic() - begun)
