"""`manage.py chat "question"`: ask, or follow a conversation, in a terminal; over the same socket that pages use."""

import asyncio
import json
import logging
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from accounts import tokens
from chat import protocol
from chat.client import (
    AnyEvent,
    ChatClient,
    ClientError,
    CommandRefused,
    Lost,
    NotSignedIn,
    NotYours,
    Received,
    Unreachable,
)
from chat.rest import create_session
from chat.terminal import AnswerView, FollowView, Paper, clean, outcome_of
from chat.transcript import Transcript
from kernel import database
from kernel.errors import ChainError
from kernel.text import storable

_DEFAULT_URL = "http://127.0.0.1:8000"
#: Whose conversations the demo's are.
_DEMO_USER = "demo"
#: Seconds that Ctrl-C waits for the answer to be stopped and saved.
_STOP_WITHIN = 5.0
_USAGE, _INTERRUPTED = 2, 130


class Command(BaseCommand):
    help = "Ask a question and read the answer as it streams, or follow a conversation (Ctrl-C stops)."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("question", nargs="?", help="what to ask; - reads it from the standard input")
        parser.add_argument("--url", help=f"the server (default: CHAIN_URL, the running demo, or {_DEFAULT_URL})")
        parser.add_argument("--session", metavar="ID", help="go on with this conversation; alone: follow it")
        parser.add_argument("--workflow", metavar="NAME", default="", help="the workflow of a new conversation")
        who = parser.add_mutually_exclusive_group()
        who.add_argument("--token", help="a token of POST /api/v1/token (default: the variable DJANGO_CHAIN_TOKEN)")
        who.add_argument("--user", metavar="NAME", help="be this user of the database (default: the only one, or demo)")
        parser.add_argument("--events", action="store_true", help="print the server's frames, one JSON text a line")

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            url, session_id = _url(options["url"]), _session_id(options["session"])
            question = _question(options["question"], needed=session_id is None)
            styled = self.stdout.isatty() and not options["no_color"] and "NO_COLOR" not in os.environ
            paper = Paper(self.stdout, self.stderr, styled=styled)
            identity = _Identity(options["token"], options["user"])
            talk = _Talk(paper, url, identity, question=question, events=options["events"])
            asyncio.run(talk.run(session_id, workflow=_workflow(options["workflow"], session_id)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read us has gone; Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except ClientError as error:
            raise CommandError(clean(f"{error.code}: {error.message}{_advice(error)}")) from error


class _Talk:
    """One run of the command."""

    def __init__(self, paper: Paper, url: str, identity: "_Identity", *, question: str, events: bool) -> None:
        self._paper = paper
        self._url = url
        self._identity = identity
        self._question = question
        self._events = events
        #: What Ctrl-C does, once there is an answer that can be stopped.
        self._stop: Callable[[], Awaitable[None]] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def run(self, session_id: UUID | None, *, workflow: str = "") -> None:
        """Until the answer's end, or without a question for ever. Raises ClientError, CommandError, CancelledError."""
        with self._on_interrupt():
            token = await self._identity.token()
            if session_id is None:
                session_id = await create_session(self._url, token=token, workflow=workflow)
            self._paper.note(f"Session {session_id}")
            renew = self._identity.token if self._identity.renewable else None
            client = ChatClient(self._url, session_id, token=token, renew=renew)
            async with aclosing(client.events()) as events:
                if self._question:
                    await self._ask(client, events)
                else:
                    await self._follow(client, events)

    async def _follow(self, client: ChatClient, events: AsyncIterator[Received | Lost]) -> None:
        view, caught_up_at = FollowView(self._paper), 0
        async for happened in events:
            event = self._told(happened)
            if isinstance(event, protocol.Welcome):
                caught_up_at = event.seq
            # Rows come in the order of their last change; read in the order of the conversation once all are there.
            if not self._events and client.transcript.seq >= caught_up_at:
                view.show(client.transcript)

    async def _ask(self, client: ChatClient, events: AsyncIterator[Received | Lost]) -> None:
        answer_id: asyncio.Future[UUID] = asyncio.get_running_loop().create_future()
        view = AnswerView(self._paper)
        sent = await client.send(self._question)

        async def stop() -> None:
            await client.stop(await answer_id)

        self._stop = stop
        async for happened in events:
            event = self._told(happened)
            if isinstance(event, protocol.Ack) and event.id == sent and isinstance(event.answer_id, UUID):
                if not answer_id.done():
                    answer_id.set_result(event.answer_id)
            elif isinstance(event, protocol.Error) and event.id == sent:
                self._refused(event, again=client.awaits(sent))
            if answer_id.done() and self._shown(client.transcript, answer_id.result(), view):
                return

    def _told(self, happened: Received | Lost) -> AnyEvent | None:
        """Tell what is not the conversation itself; the event, if there is one."""
        if isinstance(happened, Lost):
            self._paper.note(f"Connection lost ({happened.reason}); going on in {happened.wait:.1f} s …")
            return None
        if self._events:
            self._paper.raw(happened.raw)
        return happened.event

    def _refused(self, error: protocol.Error, *, again: bool) -> None:
        if not again:
            raise CommandRefused(error.message, code=error.code)
        self._paper.note(f"{error.code}: {error.message} Trying again …")

    def _shown(self, transcript: Transcript, answer_id: UUID, view: AnswerView) -> bool:
        """Show what is known of the answer; whether that is all. Raises CommandError for one that didn't end well."""
        row = transcript.messages.get(answer_id)
        if row is None:
            return False
        if row.status == "pending" and not row.deleted:
            if not self._events:
                view.show(transcript.text_of(answer_id))
            return False
        if not self._events:
            view.finish(row)
        if row.status == "complete" and not row.deleted and self._stopping is None:
            return True
        if self._stopping is not None:
            self._paper.note(outcome_of(row) if row.status != "complete" else "The answer was complete already.")
            raise asyncio.CancelledError
        raise CommandError(outcome_of(row))

    # Ctrl-C ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C stops the answer and shows what is kept; a second one leaves at once."""
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None

        def interrupt() -> None:
            if self._stop is None or self._stopping is not None:
                main.cancel()
            else:
                self._paper.note("Stopping …")
                self._stopping = loop.create_task(self._wind_down(self._stop, main))

        # Elsewhere (a test's thread, another system) Ctrl-C just ends the loop.
        with suppress(RuntimeError, ValueError, NotImplementedError):
            loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            if self._stopping is not None:
                self._stopping.cancel()
            with suppress(RuntimeError, ValueError, NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)

    async def _wind_down(self, stop: Callable[[], Awaitable[None]], main: "asyncio.Task[Any]") -> None:
        """Ask for the stop; the answer's last row ends the run, unless it doesn't come in time."""
        try:
            async with asyncio.timeout(_STOP_WITHIN):
                await stop()
                await asyncio.Event().wait()
        except (TimeoutError, ClientError):
            self._paper.note("No word from the server; the answer may go on without us.")
            main.cancel()


class _Identity:
    """Whose token it is: a given one, or one minted from the database."""

    def __init__(self, token: str | None, user: str | None) -> None:
        self._given = token or (os.environ.get("DJANGO_CHAIN_TOKEN", "") if user is None else "")
        self._user = user

    @property
    def renewable(self) -> bool:
        return not self._given

    async def token(self) -> str:
        """Raises CommandError that says how to name a user, or to do without the database."""
        if self._given:
            return self._given
        # The pool reports each of its own tries; one sentence of ours is enough.
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
        try:
            return await database.run(_mint, self._user)
        except (ChainError, DatabaseError) as error:
            raise CommandError(
                "database_unavailable: No token was given, and the database can't be used to make one. Start the demo"
                " with `make demo`, prepare your own database with `manage.py migrate`, or give --token."
            ) from error


def _mint(name: str | None) -> str:
    users = get_user_model()._default_manager.filter(is_active=True)
    named = get_user_model().USERNAME_FIELD
    if name is not None:
        user = users.filter(**{named: storable(name)}).first()
        if user is None:
            raise CommandError(f"There is no active user {name!r}.")
        return tokens.mint(user)
    few = list(users[:2])
    only = few[0] if len(few) == 1 else users.filter(**{named: _DEMO_USER}).first()
    if only is None:
        fix = "name one with --user NAME" if few else "make one with `manage.py createsuperuser`"
        raise CommandError(f"There {'are many users' if few else 'is no user'}, so who asks is not clear: {fix}.")
    return tokens.mint(only)


def _question(given: str | None, *, needed: bool) -> str:
    """The question's text; empty: there is none. Raises CommandError."""
    if given is None:
        if needed:
            raise CommandError("Give a question, or a conversation to follow with --session ID.", returncode=_USAGE)
        return ""
    text = sys.stdin.buffer.read().decode(errors="replace").rstrip("\r\n") if given == "-" else given
    if not text.strip():
        raise CommandError("The question is empty.", returncode=_USAGE)
    return storable(text)


def _session_id(given: str | None) -> UUID | None:
    try:
        return UUID(given) if given is not None else None
    except ValueError:
        raise CommandError(f"--session takes a conversation's id; {given!r} is none.", returncode=_USAGE) from None


def _workflow(given: str, session_id: UUID | None) -> str:
    if given and session_id is not None:
        raise CommandError("--workflow is for a new conversation; this --session has one already.", returncode=_USAGE)
    return given


def _url(given: str | None) -> str:
    """The server's address without a slash at its end. Raises CommandError."""
    url = given or os.environ.get("CHAIN_URL") or _announced_url() or _DEFAULT_URL
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        valid = valid and parts.username is None and parts.port != 0 and url.isascii() and url.isprintable()
    except ValueError:
        valid = False
    if not valid or " " in url:
        raise CommandError(f"The server's address has the form http://host:port, unlike {url!r}.", returncode=_USAGE)
    return url.rstrip("/")


def _announced_url() -> str:
    """Where the demo of this DATA_DIR serves. The file is django_chain.embedded's, which this layer doesn't import."""
    try:
        found = json.loads((Path(settings.DATA_DIR) / "services.json").read_text())
        return str(found.get("CHAIN_URL", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _advice(error: ClientError) -> str:
    match error:
        case Unreachable():
            return " Start one with `make demo`, or name another with --url."
        case NotSignedIn():
            return " Give a new one with --token, or none: it is then made from the database (--user NAME)."
        case NotYours():
            return " Without --session, a new conversation is begun."
    return ""
