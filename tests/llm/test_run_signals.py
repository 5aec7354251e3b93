"""The signals of a run: once, after the commit, and harmless."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from kernel import database
from kernel.ids import new_id
from llm import ledger, signals
from llm.journal import Call, Closed, Ending, RunJournal, RunRef
from llm.models import CallStatus, InteractionLog
from llm.usage import Usage
from tests.conftest import Person

Seen = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What was told, with the status of the run's row as another connection reads it meanwhile."""
    found: Seen = []

    async def note(signal: Any, **told: Any) -> None:
        name = next(name for name in ("run_started", "run_finished", "run_failed") if getattr(signals, name) is signal)
        status = await database.run(_status_of, told["run"].run_id)
        found.append((name, {**told, "row": status}))

    for signal in (signals.run_started, signals.run_finished, signals.run_failed):
        signal.connect(note, weak=False, dispatch_uid="test")
    yield found
    for signal in (signals.run_started, signals.run_finished, signals.run_failed):
        signal.disconnect(dispatch_uid="test")


def _status_of(run_id: UUID) -> str:
    return str(InteractionLog.objects.get(run_id=run_id, call=0).status)


def _ref(person: Person) -> RunRef:
    from accounts.access import workspace_for

    return RunRef(
        run_id=new_id(), workspace_id=workspace_for(person.caller, None).id, user_id=person.user.id, holds=False
    )


def _opened(ref: RunRef) -> None:
    with transaction.atomic():
        ledger.open_run(ref, in_chat=True)


@pytest.mark.parametrize(
    ("status", "name"),
    [("ok", "run_finished"), ("stopped", "run_finished"), ("failed", "run_failed"), ("interrupted", "run_failed")],
)
async def test_each_end_is_told_once_after_its_commit(person: Person, seen: Seen, status: str, name: str) -> None:
    ref = await database.run(_ref, person)
    await database.run(_opened, ref)
    await database.run(ledger.close_run, Ending(run=ref, status=CallStatus(status)))
    assert [(one, told["row"]) for one, told in seen] == [("run_started", "started"), (name, status)]


async def test_a_run_that_is_taken_over_has_started_once(person: Person, seen: Seen) -> None:
    ref = await database.run(_ref, person)
    await database.run(_opened, ref)

    def again() -> RunRef:
        with transaction.atomic():
            return ledger.reopen_run(ref)

    again_ref = await database.run(again)
    await database.run(ledger.close_run, Ending(run=again_ref, status=CallStatus.OK))
    assert [one for one, _ in seen] == ["run_started", "run_finished"]


async def test_what_was_rolled_back_is_not_told(person: Person, seen: Seen) -> None:
    ref = await database.run(_ref, person)

    def undone() -> None:
        with transaction.atomic():
            ledger.open_run(ref, in_chat=True)
            transaction.set_rollback(True)

    await database.run(undone)
    assert seen == []


async def test_a_receiver_that_raises_harms_nothing(person: Person, seen: Seen) -> None:
    def raises(**_: Any) -> None:
        raise RuntimeError

    signals.run_started.connect(raises, weak=False, dispatch_uid="raises")
    try:
        await database.run(_opened, await database.run(_ref, person))
    finally:
        signals.run_started.disconnect(dispatch_uid="raises")
    assert [one for one, _ in seen] == ["run_started"]


@pytest.mark.parametrize(
    ("setting", "own", "kept"),
    [
        ("full", "full", "bob@example.org"),
        ("redacted", "full", "[redacted:email]"),
        ("full", "redacted", "[redacted:email]"),
        ("full", "none", ""),
        ("none", "full", ""),
    ],
)
async def test_the_stricter_policy_decides_what_a_row_keeps(
    person: Person, settings: Any, setting: str, own: str, kept: str
) -> None:
    settings.DJANGO_CHAIN = {"LLM": {"LOG_CONTENT": setting}}
    ref = await database.run(_ref, person)
    await database.run(_opened, ref)
    journal = RunJournal(ref)
    journal.keep(own)
    said = [{"role": "user", "content": "bob@example.org"}]
    call = Call(number=0, alias="a", provider="p", model="m", parameters={"api_key": "swordfish"}, messages=said)
    usage = Usage(1, 1, estimated=False)
    closed = Closed(call=call, status=CallStatus.OK, usage=usage, text="bob@example.org", metadata={"m": "bob@x.org"})
    await database.run(ledger.close_run, Ending(run=journal.run, status=CallStatus.OK, calls=(closed,)))
    row = await database.run(lambda: InteractionLog.objects.get(run_id=ref.run_id))
    assert row.response_text == kept
    assert row.prompt_text == ([{"role": "user", "content": kept}] if kept else None)
    assert row.model_parameters == {"api_key": "[redacted:secret]"}
    assert row.metadata == {"m": "[redacted:email]"}


async def test_of_a_run_whose_process_died_no_text_is_kept(person: Person, settings: Any) -> None:
    settings.DJANGO_CHAIN = {"LLM": {"LOG_CONTENT": "full"}}
    ref = await database.run(_ref, person)
    await database.run(_opened, ref)
    await database.run(
        ledger.close_run, Ending(run=ref, status=CallStatus.INTERRUPTED, unknown=True, text="shown before")
    )
    row = await database.run(lambda: InteractionLog.objects.get(run_id=ref.run_id))
    assert (row.status, row.response_text) == ("interrupted", "")


async def test_a_policy_never_gets_laxer(person: Person) -> None:
    journal = RunJournal(await database.run(_ref, person))
    journal.keep("none")
    journal.keep("redacted")
    assert journal.run.log_content == "none"
