"""The process's turns: every answer runs in a task that is held here, so a closed tab doesn't stop it.

The runner renews the leases of its runs, drops those it lost, takes over those that other processes let run out, and
ends each run exactly once. Rules of the rows are in chat.turns; text goes through chat.streams.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from functools import partial
from secrets import token_hex
from time import monotonic
from typing import Any
from uuid import UUID

from accounts.access import Caller
from chat import answers, branches, protocol, streams, turns, wire
from chat.hub import Hub
from chat.jobs import Fate, Job, bare, settlement
from chat.models import ChatHistory
from chat.streams import Flusher
from chat.turns import Accepted, LeaseLost, Outcome, TakenOver, Turn
from kernel import database
from kernel.conf import config
from kernel.errors import Busy, ChainError, DatabaseUnavailable, StoreUnavailable, Unavailable
from kernel.redaction import redact_data
from llm.events import Event, Sources, Step, Text
from memory import exchange

logger = logging.getLogger(__name__)

#: Seconds that a model may take to end after it was told to.
_PATIENCE = 5.0


class Runner:
    """Runs this process's turns and watches over everyone's leases."""

    def __init__(self, hub: Hub) -> None:
        self.owner = f"{socket.gethostname()[:30]}:{os.getpid()}:{token_hex(6)}"
        self.draining = False
        self.jobs: dict[UUID, Job] = {}
        self.flusher = Flusher(
            sender=hub.sender, deliver=hub.deliver, may_write=self._holds_leases, others_watch=hub.others_watch
        )
        self._hub = hub
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leases_until = 0.0
        self._released = False
        self._renewing: asyncio.Task[Any] | None = None
        #: Since when the database answers; a process that couldn't reach it can't tell whose lease really ran out.
        self._reachable_since = monotonic() - config().chat.lease_seconds
        #: Runs that wait for an earlier one of their session.
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        hub.on_stop = self.stop
        hub.on_watch = self._watched
        hub.on_row = self._row_changed
        hub.on_store_lost = self.flusher.store_lost
        hub.is_local = self.jobs.__contains__

    def start(self) -> None:
        self._own(self._keep_leases(), "chain-leases")

    async def close(self) -> None:
        """Cut everything short at once; what was under way is another process's."""
        left = bool(self.jobs)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.flusher.close()
        if left:
            await self._release()

    def _own(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._let_go)
        return task

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # A ChainError is somebody's answer already (the sender's, or the run's outcome); anything else is a bug.
        if error is not None and not isinstance(error, ChainError):
            logger.error("action=task_failed task=%s", task.get_name(), exc_info=error)

    # In --------------------------------------------------------------------------------------------------------------

    async def send(
        self, caller: Caller, session_id: UUID, *, client_id: str, text: str, parent: UUID | None = None
    ) -> Accepted:
        """Commit a message and begin its answer; when this returns, the message is safe.

        A caller that is cancelled meanwhile changes nothing: the work belongs to the process.
        Raises what turns.accept raises, Busy, and Unavailable (`draining`).
        """
        return await self._accepting(
            partial(turns.accept, caller, session_id, client_id=client_id, text=text, parent=parent)
        )

    async def edit(self, caller: Caller, session_id: UUID, message_id: UUID, *, client_id: str, text: str) -> Accepted:
        """`send`, of another question beside `message_id`. Raises what branches.edit raises, too."""
        return await self._accepting(
            partial(branches.edit, caller, session_id, message_id, client_id=client_id, text=text)
        )

    async def regenerate(self, caller: Caller, session_id: UUID, message_id: UUID, *, client_id: str) -> Accepted:
        """Begin another answer beside `message_id`, as `send` does. Raises what branches.regenerate raises, too."""
        return await self._accepting(partial(branches.regenerate, caller, session_id, message_id, client_id=client_id))

    async def delete(self, caller: Caller, session_id: UUID, message_id: UUID) -> ChatHistory:
        """Empty a message, and show that. Raises what branches.delete raises."""
        return await asyncio.shield(self._own(self._delete(caller, session_id, message_id), "chain-delete"))

    async def _delete(self, caller: Caller, session_id: UUID, message_id: UUID) -> ChatHistory:
        done = await database.run(branches.delete, caller, session_id, message_id)
        if done.outdated is not None:
            await self._hub.publish(session_id, wire.row_of(done.row))
            await answers.forget(done)
        return done.row

    async def _accepting(self, commit: Callable[..., Accepted]) -> Accepted:
        if self.draining:
            raise Unavailable("The server is going away; reconnect and send again.", code="draining", retry_after=1)
        return await asyncio.shield(self._own(self._accept(commit), "chain-accept"))

    async def _accept(self, commit: Callable[..., Accepted]) -> Accepted:
        began = monotonic()
        accepted = await database.run(commit, owner=self.owner, full=self._full())
        if accepted.turn is not None:
            self._own(self._begin(accepted, began), "chain-begin")
            if accepted.outdated is not None:
                self._own(exchange.forget(accepted.turn.session_id, epoch=accepted.outdated), "chain-forget")
        return accepted

    def _full(self) -> bool:
        return len(self.jobs) >= config().chat.max_turns_per_process

    async def _begin(self, accepted: Accepted, began: float) -> None:
        assert accepted.turn is not None
        turn = accepted.turn
        job = self._job(turn, began)
        job.place = accepted.place
        try:
            # The rows go out before any text of the answer can.
            await self._hub.publish(turn.session_id, *(wire.row_of(row, turn.attempt) for row in accepted.rows))
            await self._run(job)
        finally:
            # Whatever happened: a run that is not worked on may not keep its lease.
            self._forget(job)

    def _job(self, turn: Turn, leased_at: float) -> Job:
        if not self.jobs:
            self._leases_until = leased_at + config().chat.lease_seconds
        job = Job(turn, self.flusher.open(turn.session_id, turn.answer_id, turn.attempt))
        self.jobs[turn.answer_id] = job
        return job

    def stop(self, answer_id: UUID) -> None:
        """Stop an answer if it runs here."""
        job = self.jobs.get(answer_id)
        if job is not None:
            job.cut(Fate.STOPPED)

    # A run -----------------------------------------------------------------------------------------------------------

    async def _run(self, job: Job) -> None:
        try:
            if job.fate is Fate.NONE:
                job.work = self._own(self._work(job), "chain-answer")
                try:
                    await self._worked(job, job.work)
                finally:
                    job.work.cancel()
            if job.fate is not Fate.LOST:
                job.ending = True
                await self._end(job, job.outcome())
        finally:
            self._forget(job)

    async def _worked(self, job: Job, work: asyncio.Task[None]) -> None:
        """Wait for the work's end; one that was cut and doesn't end is left behind, so that its session goes on."""
        while not work.done():
            await asyncio.wait([work], timeout=_PATIENCE)
            if not work.done() and job.cut_at is not None and monotonic() - job.cut_at > _PATIENCE:
                logger.error("action=model_ignores_stop run=%s", job.turn.run_id)
                return

    def _forget(self, job: Job) -> None:
        self.flusher.drop(job.stream)
        if self.jobs.get(job.turn.answer_id) is job:
            del self.jobs[job.turn.answer_id]

    async def _work(self, job: Job) -> None:
        if job.place:
            await self._wait_for_earlier(job)
            job.configuration_may_have_changed()
            job.turn = await database.run(turns.in_its_turn, job.turn)
        async with aclosing(answers.answer(job.turn, job.journal, job.trace)) as events:
            async for event in events:
                if job.ending:
                    return  # its end was written without it (see _worked): nothing may be shown beyond that
                if type(event) is Text:
                    job.stream.append(event.text)
                else:
                    self._note(job, event)

    def _note(self, job: Job, event: Event) -> None:
        answer_id = job.turn.answer_id
        match event:
            case Sources():
                job.sources = list(event.hits)
                job.stream.add_extra("sources", protocol.Sources(message_id=answer_id, hits=job.sources))
            case Step():
                step = protocol.Step(
                    message_id=answer_id, name=event.name, state=event.state, detail=redact_data(event.detail)
                )
                job.stream.add_extra("step", step)
            case _:
                pass

    async def _wait_for_earlier(self, job: Job) -> None:
        """Answers of a session come one after the other, so that each can know the one before."""
        seen = asyncio.Event()
        waiting = self._waiting.setdefault(job.turn.session_id, set())
        waiting.add(seen)
        try:
            await self._wait_for_place(job, seen)
        finally:
            waiting.discard(seen)
            if not waiting:
                self._waiting.pop(job.turn.session_id, None)

    async def _wait_for_place(self, job: Job, seen: asyncio.Event) -> None:
        told = None
        while True:
            seen.clear()
            place = await database.run(turns.earlier_turns, job.turn)
            if not place:
                return
            if place != told:
                told = place
                self._note(job, Step(name="queue", state="queued", detail={"place": place}))
            try:
                # The event is a doorbell that may get lost with the store; a look a second makes up for it.
                async with asyncio.timeout(1):
                    await seen.wait()
            except TimeoutError:
                continue

    def _row_changed(self, session_id: UUID) -> None:
        for seen in self._waiting.get(session_id, ()):
            seen.set()

    async def _end(self, job: Job, outcome: Outcome) -> None:
        """Write the end, as long as it takes; then show it. What sockets have is a prefix of it at every moment."""
        if not job.stream.settled.is_set():
            self.flusher.hurry()
        try:
            async with asyncio.timeout(config().chat.lease_seconds):
                await job.stream.settled.wait()
        except TimeoutError:
            logger.warning("action=flush_late run=%s", job.turn.run_id)
        await self._finish(job.turn, outcome)

    async def _finish(self, turn: Turn, outcome: Outcome) -> None:
        pause, bared = 0.25, False
        while True:
            try:
                needs = None if bared else await answers.needs(turn)
                row = await database.run(turns.finish, turn, outcome, needs)
            except LeaseLost:
                logger.info("action=lease_lost run=%s attempt=%d", turn.run_id, turn.attempt)
                return
            except (DatabaseUnavailable, Busy):
                # The answer is paid for: keep it until the database is back. The lease decides whose it is then.
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            except Exception as error:
                if bared:
                    raise
                # Rows that can't be written as they are: a run that never ends would block its session for ever.
                # Not the error's text: PostgreSQL quotes the row in it.
                logger.error("action=finish_failed run=%s error=%s", turn.run_id, type(error).__name__)  # noqa: TRY400
                outcome, bared = bare(outcome), True
                continue
            break
        # Before the end is known: the next answer may begin with it, and should know this one.
        await self._remember(turn, outcome)
        await self._hub.publish(turn.session_id, wire.row_of(row))
        logger.info(
            "action=turn_ended session=%s run=%s attempt=%d status=%s error=%s alias=%s latency_ms=%s tokens=%s",
            turn.session_id,
            turn.run_id,
            turn.attempt,
            outcome.status,
            outcome.error_code or "-",
            outcome.log.alias or "-",
            outcome.log.latency_ms,
            outcome.output_tokens,
        )
        if needs:
            await answers.tell_worker(turn)

    async def _remember(self, turn: Turn, outcome: Outcome) -> None:
        try:
            await answers.remember(turn, status=outcome.status, text=outcome.text)
        except Exception as error:  # noqa: BLE001  nothing may hold back the row
            # The rows are the truth; a copy that misses them is noticed by its reader.
            logger.error("action=remember_failed run=%s error=%s", turn.run_id, type(error).__name__)  # noqa: TRY400

    # Leases ----------------------------------------------------------------------------------------------------------

    def _holds_leases(self) -> bool:
        return not self.jobs or monotonic() < self._leases_until

    def _watched(self, session_id: UUID) -> None:
        for job in self.jobs.values():
            if job.turn.session_id == session_id:
                job.stream.watched = True

    async def _keep_leases(self) -> None:
        options = config().chat
        swept_at = 0.0
        while True:
            await asyncio.sleep(options.renew_seconds)
            try:
                if self.jobs:
                    self._renewing = self._own(self._renew(), "chain-renew")
                    await self._renewing
                if not self.draining and monotonic() - swept_at >= options.sweep_seconds:
                    swept_at = monotonic()
                    await self._sweep()
            except (DatabaseUnavailable, Busy):
                self._reachable_since = monotonic()
            except Exception:
                # Without this task every run of the process is lost after a lease: it goes on whatever happened.
                logger.exception("action=leases_failed")
                self._reachable_since = monotonic()

    async def _renew(self) -> None:
        if self._released:
            return
        began = monotonic()
        asked = [(answer_id, job.turn.attempt) for answer_id, job in self.jobs.items()]
        held = await database.run_ahead(turns.renew, self.owner, [answer_id for answer_id, _ in asked])
        attempts = {one.answer_id: one.attempt for one in held}
        for answer_id, attempt in asked:
            job = self.jobs.get(answer_id)
            # One that is just being ended, too: its row is fenced, what it still shows is not.
            if job is not None and attempts.get(answer_id) != attempt:
                self.flusher.drop(job.stream)
                job.cut(Fate.LOST)
        # Only now may text flow again: what was lost is cut.
        self._leases_until = began + config().chat.lease_seconds
        for one in held:
            if one.stop_requested:
                self.stop(one.answer_id)

    async def _sweep(self) -> None:
        looked_at = monotonic()
        if looked_at - self._reachable_since < config().chat.lease_seconds:
            # A first answer after an outage: the owners get the time of a lease to come back first.
            await database.run_ahead(turns.renew, self.owner, [])
            if monotonic() - looked_at > config().chat.renew_seconds:
                self._reachable_since = monotonic()  # it waited for the database, which is back only now
            return
        options = config().chat
        room = options.max_turns_per_process - len(self.jobs)
        if room <= 0:
            return
        began = monotonic()
        # This call may sit an outage out. If it takes longer than that, owners may have missed their renewals by it.
        patience = options.lease_seconds - options.renew_seconds - options.sweep_seconds
        before = began + max(patience, options.renew_seconds)
        taken = await database.run_ahead(turns.take_over, self.owner, limit=min(20, room), before=before)
        for one in taken:
            logger.info("action=taken_over run=%s attempt=%d", one.turn.run_id, one.turn.attempt)
            mine = self.jobs.get(one.turn.answer_id)
            if mine is not None:  # our own, after a stall longer than a lease
                self.flusher.drop(mine.stream)
                mine.cut(Fate.LOST)
            self._own(self._recover(one, self._job(one.turn, began)), "chain-recover")

    async def _recover(self, taken: TakenOver, job: Job) -> None:
        """Settle a run whose owner died: shown text stays and is marked; if none was shown, answer anew."""
        turn = taken.turn
        try:
            row = await self._settle(taken, job)
            if row is not None:
                await self._hub.publish(turn.session_id, wire.row_of(row, turn.attempt))
                job.place = 1  # whether an earlier turn is open is not known here: look
                await self._run(job)
        except (LeaseLost, DatabaseUnavailable, Busy):
            logger.info("action=recovery_left run=%s", turn.run_id)  # another's, or someone's after this lease
        finally:
            self._forget(job)

    async def _settle(self, taken: TakenOver, job: Job) -> ChatHistory | None:
        """End the run, or stamp its row for a further attempt and return it."""
        turn = taken.turn
        shown = await self._shown_before(turn)
        if shown is None or shown or taken.stop_requested or turn.attempt > config().chat.max_attempts:
            job.ending = True
            await self._finish(turn, settlement(taken, shown or "", unknown=shown is None))
            return None
        row, again = await database.run(turns.restart, turn)
        job.begin_again(again)
        return row

    async def _shown_before(self, turn: Turn) -> str | None:
        """The text that an earlier attempt may have shown; None when the store stays away and nobody can tell."""
        deadline = monotonic() + config().chat.lease_seconds
        while True:
            try:
                for attempt in range(turn.attempt - 1, 0, -1):
                    text = await streams.read_all(turn.answer_id, attempt)
                    if text:
                        return text
            except StoreUnavailable:
                if monotonic() > deadline:
                    return None
                await asyncio.sleep(0.5)
            else:
                return ""

    # Drain -----------------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Take no more; let the turns end within the time; hand over the rest by giving up their leases."""
        self.draining = True
        deadline = monotonic() + seconds
        while self.jobs and monotonic() < deadline:
            await asyncio.sleep(0.05)
        left = list(self.jobs.values())
        for job in left:
            job.cut(Fate.LOST)
        if left:
            logger.info("action=handed_over runs=%d", len(left))
        # Before the leases are given up: a renewal under way would take them back.
        self._released = True
        if self._renewing is not None:
            await asyncio.wait([self._renewing], timeout=config().chat.lease_seconds)
        await self._release()

    async def _release(self) -> None:
        try:
            await database.run_ahead(turns.release, self.owner)
        except (DatabaseUnavailable, Busy):
            logger.warning("action=release_failed")  # they run out by themselves
