"""`python -m django_chain demo`: everything on this machine, with sample documents, until Ctrl-C."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from django_chain.embedded import process, state
from django_chain.embedded.app_server import DEFAULT_PORT, AppServer, choose_port, is_free
from django_chain.embedded.errors import ChainError, StartError
from django_chain.embedded.lock import OnlyRun
from django_chain.embedded.stack import Service, Stack
from django_chain.embedded.worker import Worker

USERNAME = "demo"
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
#: The sample workflow, named after its file.
WORKFLOW = Path(__file__).resolve().parent / "samples" / "desk.json"
QUESTION = "How long is the warranty of the X200?"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _AskedToStop(BaseException):
    """Ctrl-C, SIGTERM, or the terminal went away."""


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run the demo until it is asked to stop (0) or something fails (1)."""
    for number in _SIGNALS:
        signal.signal(number, _ask_to_stop)
    try:
        _run(environ)
    except _AskedToStop:
        say("Stopped.")
        return 0
    except ChainError as error:
        print(f"\n{error.message}", file=sys.stderr, flush=True)
    return 1


def say(line: str) -> None:
    # A reader that went away (a closed terminal, `| head`) must not keep us from stopping in order.
    with suppress(OSError):
        print(line, flush=True)


def step(name: str, seconds: float) -> None:
    """One line of progress."""
    say(f"  {name:<32}{seconds:6.1f} s")


def _run(environ: Mapping[str, str]) -> None:
    begun = time.monotonic()
    data_dir = state.data_dir()
    say(f"Django Chain demo, data in {data_dir}")
    with OnlyRun(data_dir, waiting=lambda: say("Another run is just ending there; waiting for it …")) as run:
        port = environ.get("PORT", "")
        choose_port(port)  # a taken one is told at once
        with Stack(data_dir, environ=environ, report=step) as stack, _stopping(run) as programs:
            stack.announce(**_choices(environ))
            _prepare(stack.variables)
            server = _serve(programs, port, stack)
            stack.announce(CHAIN_URL=server.url)
            # After the server: on a small machine the two would slow each other down.
            worker = Worker(data_dir, variables=stack.variables)
            programs.append(worker)
            worker.start()
            _invite(server.url, environ, seconds=time.monotonic() - begun)
            _watch({"The application server": server, "The worker": worker, **stack.services})


@contextmanager
def _stopping(run: OnlyRun) -> Iterator[list[Service]]:
    """A list of programs that are stopped first on the way out, in its order, while the services still run."""
    programs: list[Service] = []
    try:
        yield programs
    finally:
        _ignore_signals()
        run.ending()
        say("\nStopping; answers under way may finish first …")
        for program in programs:
            program.stop()


def _choices(environ: Mapping[str, str]) -> dict[str, str]:
    choices = {"DEBUG": environ.get("DEBUG") or "0"}
    if environ.get("OPENAI_API_KEY") and not (environ.get("OPENAI_BASE_URL") or environ.get("OPENAI_MODEL")):
        choices["OPENAI_MODEL"] = "gpt-4o-mini"
        say("OPENAI_API_KEY is set: answers come from gpt-4o-mini (OPENAI_MODEL chooses another).")
    return choices


def _prepare(variables: Mapping[str, str]) -> None:
    """Migrate, sign up, ingest: in a process of its own, so that this one stays small and needs no Django."""
    command = [sys.executable, "-m", "django", "prepare_demo"]
    settings = {"DJANGO_SETTINGS_MODULE": "django_chain.settings"}
    if process.run_bound(command, cwd=SAMPLES.parent, env=os.environ | dict(variables) | settings) != 0:
        raise StartError("The database could not be prepared; the reason stands above.")


def _serve(programs: list[Service], asked: str, stack: Stack) -> AppServer:
    """Start the application on the port that was asked for, or on the first free one."""
    begun = time.monotonic()
    while True:
        server = AppServer(state.data_dir(), port=choose_port(asked), variables=stack.variables)
        programs.append(server)
        try:
            server.start()
        except StartError:
            # Another demo may have taken the port while this one was starting.
            if asked or is_free(server.port):
                raise
            continue
        step("application server", time.monotonic() - begun)
        if server.port != DEFAULT_PORT and not asked:
            say(f"Port {DEFAULT_PORT} is taken, so this one serves on {server.port}.")
        return server


def _invite(url: str, environ: Mapping[str, str], *, seconds: float) -> None:
    python = Path(sys.executable)
    shown = python.relative_to(SAMPLES.parent) if python.is_relative_to(SAMPLES.parent) else python
    where = f"DATA_DIR={shlex.quote(environ['DATA_DIR'])} " if environ.get("DATA_DIR") else ""
    say(
        f"Ready after {seconds:.1f} s.\n\n"
        f"  Open      {url}/\n"
        f"  Sign in   {USERNAME} / {state.demo_password()}\n"
        f'  Or try    {where}{shown} manage.py chat "{QUESTION}"\n'
        f"            {where}{shown} manage.py chat --workflow {WORKFLOW.stem} …\n\n"
        "Ctrl-C stops everything; the data stays."
    )


def _watch(services: Mapping[str, Service]) -> None:
    """Until a service ends by itself."""
    while True:
        for name, service in services.items():
            if not service.running:
                raise StartError(f"{name} has ended unexpectedly. {service.log_tail()}")
        time.sleep(0.5)


def _ask_to_stop(*_: object) -> None:
    _ignore_signals()
    raise _AskedToStop


def _ignore_signals() -> None:
    """The way out is under way; interrupted half-way it would leave services behind."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
