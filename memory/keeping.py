"""A session's job done: what a summary lacks is summarised, what recall lacks is embedded.

Runs in a worker, after the answer. Whatever happens to it, the rows say what is still to be done.
"""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.apps import apps

from kernel import database
from kernel.errors import ChainError
from llm.embeddings.embedder import Embedder, Vector, embedder
from llm.errors import ProviderRefused
from memory import jobs, options, paths, summaries, vectors
from memory.jobs import Claim
from memory.options import SummaryBufferOptions, SummaryOptions
from memory.summaries import Due, Written

if TYPE_CHECKING:
    from memory.summarising import Writer

logger = logging.getLogger(__name__)

#: Seconds after which the rest is left to the next worker: a task is bounded.
_LONGEST = 300.0
#: Characters of which a model that refuses them doesn't refuse the number.
_SHORT = 100
_KINDS: dict[str, type[SummaryOptions | SummaryBufferOptions]] = {
    "summary": SummaryOptions,
    "summary_buffer": SummaryBufferOptions,
}


class _Lost(Exception):
    """The job is another worker's by now."""


class _TimeIsUp(Exception):
    """There is more to be done than one task may take."""


async def work(session_id: UUID) -> None:
    """Do a session's job, unless it is done or another's. Failures are written down, and tried again later."""
    until = monotonic() + _LONGEST
    while True:
        claim = await database.run(jobs.claim, session_id)
        if claim is None:
            return
        try:
            await _made(claim, until)
        except _Lost:
            logger.info("action=memory_job_lost session=%s", session_id)
            return
        except _TimeIsUp:
            await database.run(jobs.later, claim)
            return
        except ChainError as error:
            logger.warning("action=memory_job_failed session=%s error=%s", session_id, error.code)
            await database.run(jobs.failed, claim, error.code, getattr(error, "retry_after", None))
            return
        except Exception as error:  # noqa: BLE001  whatever it was, the job's row says so
            # Not the error's text, and not to Celery, which would log it: it may quote a message.
            logger.error("action=memory_job_failed session=%s error=%s", session_id, type(error).__name__)  # noqa: TRY400
            await database.run(jobs.failed, claim, "internal")
            return
        if not await database.run(jobs.done, claim):
            logger.info("action=memory_kept session=%s", session_id)
            return


async def _made(claim: Claim, until: float) -> None:
    """Vectors and summaries; neither waits for the other's provider."""
    failure: ChainError | None = None
    try:
        await _vectors(claim, until)
    except ChainError as error:
        failure = error
    await _summaries(claim, until)
    if failure is not None:
        raise failure


async def _vectors(claim: Claim, until: float) -> None:
    if not claim.needs.vectors:
        return
    model = embedder()
    while texts := await database.run(vectors.missing, claim.session_id, model.model, model.dimension):
        made = await _embedded(model, [each.content for each in texts])
        if not await database.run(vectors.keep, claim, texts, made, model.model):
            raise _Lost
        _check(until)
    await database.run(paths.keep, claim.session_id, claim.workspace_id)


async def _embedded(model: Embedder, texts: Sequence[str]) -> list[Vector]:
    """A vector a text. One that the provider refuses in any length has zeros, which are near to nothing."""
    try:
        return await model.documents(texts)
    except ProviderRefused:
        if len(texts) > 1:
            return [vector for text in texts for vector in await _embedded(model, [text])]
        (text,) = texts
        if len(text) > _SHORT:  # a model counts tokens, and some scripts have more of them than letters
            return await _embedded(model, [text[: len(text) // 2]])
        # Unless it refuses everything: then it is set up wrong, and that will be put right.
        await model.documents(["Hello."])
        return [[0.0] * model.dimension]


async def _summaries(claim: Claim, until: float) -> None:
    if claim.needs.summary is None:
        return
    # Brings LangChain, which start-up must not; a worker's tasks are imported there.
    from memory.summarising import Whose, Writer  # noqa: PLC0415

    try:
        wanted = options.read(_KINDS[claim.needs.kind], claim.needs.summary)
    except ValueError as error:
        raise ChainError(str(error), code="misconfigured") from error
    whose = Whose(
        workspace_id=claim.workspace_id,
        session_id=claim.session_id,
        user_id=await database.run(_user_of, claim.session_id),
        log_content=claim.needs.log_content,
    )
    writer = await Writer.of(whose, wanted)
    while due := await database.run(summaries.due, claim.session_id, wanted, writer.counter.text):
        new = await _written(writer, due, wanted)
        # What was deleted meanwhile is not in it, or it is not kept; then it is made again of what is left.
        if not await database.run(summaries.keep, claim, new) and not await database.run(jobs.progress, claim):
            raise _Lost
        _check(until)


async def _written(writer: "Writer", due: Due, wanted: SummaryOptions | SummaryBufferOptions) -> Written:
    notes = due.base.text if due.base is not None else ""
    taken = fitting = writer.fitting(notes, due.texts)
    # Whole turns, if one fits.
    while 0 < taken < len(due.texts) and due.texts[taken][0] != "USER":
        taken -= 1
    taken = taken or fitting
    text, alias = await writer.summarise(notes, due.texts[:taken])
    return Written(
        base=due.base.id if due.base is not None else None,
        ids=[each.id for each in due.said[:taken]],
        order=due.said[taken - 1].order,
        text=text,
        model=alias,
        prompt_hash=wanted.prompt_hash,
    )


def _user_of(session_id: UUID) -> int | None:
    sessions: Any = apps.get_model("chat", "ChatSession").objects
    user_id: int | None = sessions.filter(id=session_id).values_list("user_id", flat=True).first()
    return user_id


def _check(until: float) -> None:
    if monotonic() > until:
        raise _TimeIsUp
