"""Versions of prompts and workflows: which one answers under a name, who said so, and how to go back.

Each function is one unit of database work. It begins by bumping the workspace's generation (llm.generation): that tells
every process of the change, and holds the one row that all changes of a workspace's configuration need, so that two at
once come one after the other: numbers are given once, and one version is active. Each leaves an Activation row and
sends a signal (llm.signals) after the commit.
"""

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import Max, QuerySet

from kernel.errors import Conflict, Invalid, NotFound, TooLarge
from kernel.text import storable
from llm import generation, signals
from llm.models import Activation, Prompt, PromptSplit, Versioned, Workflow

V = TypeVar("V", Prompt, Workflow)
Action = Activation.Action

_MAX_NAME = 255
_MAX_CHARS = 1_000_000
_MAX_SHARES = 20
_MAX_HISTORY = 1_000
_MAX_DIFF_LINES = 5_000
#: A state that a roll back leaves, and never leads to: it looks further for a version that answered alone.
_NO_VERSION = None


def create(
    kind: type[V],
    workspace_id: UUID,
    name: str,
    *,
    user_id: int | None,
    note: str = "",
    activate: bool = False,
    **content: Any,
) -> V:
    """The next version of a name. Raises PromptInvalid or WorkflowInvalid, which name the fault."""
    with changing(workspace_id):
        last = kind.objects.filter(workspace_id=workspace_id, name=name).aggregate(last=Max("version"))["last"]
        row = kind(
            workspace_id=workspace_id,
            name=name,
            version=(last or 0) + 1,
            note=note,
            created_by_id=user_id,
            is_active=activate,
            **content,
        )
        row.save()
    return row


def activate(row: Versioned, *, user_id: int | None) -> None:
    """Have this version answer alone: another one is deactivated, and a split ends. Nothing happens if it does."""
    with changing(row.workspace_id):
        if (
            _current(type(row), row.workspace_id, row.name) != row.version
            or _split_of(type(row), row.workspace_id, row.name).exists()
        ):
            _switch_to(row, Action.ACTIVATED, user_id)
    row.is_active = True


def deactivate(kind: type[Versioned], workspace_id: UUID, name: str, *, user_id: int | None) -> None:
    """Have no version answer under the name; a split ends, too. Raises NotFound if none does."""
    with changing(workspace_id):
        version = _current(kind, workspace_id, name)
        ended, _ = _split_of(kind, workspace_id, name).delete()
        if version is None and not ended:
            raise NotFound(f"No version of the {_kind(kind)} {name!r} is active.")
        _named(kind, workspace_id, name).filter(is_active=True).update(is_active=False)
        _record(kind, workspace_id, name, Action.DEACTIVATED, version=version, user_id=user_id)


def deactivate_row(row: Versioned, *, user_id: int | None) -> None:
    """`deactivate` if it is this version that is active; else nothing happens."""
    with changing(row.workspace_id):
        if _current(type(row), row.workspace_id, row.name) == row.version:
            deactivate(type(row), row.workspace_id, row.name, user_id=user_id)
    row.is_active = False


def roll_back(kind: type[V], workspace_id: UUID, name: str, *, user_id: int | None) -> V:
    """Undo the last change: the version that was active before it answers again. The next roll back goes further.

    Raises Conflict if there is nothing to go back to.
    """
    with changing(workspace_id):
        rows = _named(kind, workspace_id, name)
        known = set(rows.values_list("version", flat=True))
        earlier = _states(kind, workspace_id, name, known)[:-1]
        while earlier and earlier[-1] not in known:
            earlier.pop()
        if not earlier:
            raise Conflict(f"No other version of the {_kind(kind)} {name!r} was active before.")
        row: V = rows.get(version=earlier[-1])
        _switch_to(row, Action.ROLLED_BACK, user_id)
    row.is_active = True
    return row


def split(workspace_id: UUID, name: str, shares: Mapping[int, int], *, user_id: int | None) -> None:
    """Have versions of a prompt answer side by side, each for its share in percent; no shares: end the split.

    Raises Invalid that names the fault: a version that doesn't exist, shares that aren't 100 together.
    """
    with changing(workspace_id):
        _check_shares(name, shares, _named(Prompt, workspace_id, name).values_list("version", flat=True))
        mine = PromptSplit.objects.filter(workspace_id=workspace_id, name=name)
        if shares:
            stored = {str(version): share for version, share in sorted(shares.items())}
            if not mine.update(shares=stored):
                PromptSplit.objects.create(workspace_id=workspace_id, name=name, shares=stored)
        elif not mine.delete()[0]:
            return
        detail = {str(version): share for version, share in shares.items()}
        _record(Prompt, workspace_id, name, Action.SPLIT, version=None, user_id=user_id, detail=detail)


def history(kind: type[V], workspace_id: UUID, name: str) -> QuerySet[Activation]:
    """Who did what when, newest first."""
    rows = Activation.objects.filter(workspace_id=workspace_id, kind=_kind(kind), name=name)
    return rows.select_related("user").order_by("-id")


def diff(a: Versioned, b: Versioned) -> str:
    """What changed from `a` to `b`: a unified diff of their content as JSON with sorted keys; empty if nothing did."""
    before, after = (_canonical(row) for row in (a, b))
    if max(len(before), len(after)) > _MAX_DIFF_LINES:
        raise TooLarge(f"A version of more than {_MAX_DIFF_LINES} lines can't be compared.")
    return "\n".join(difflib.unified_diff(before, after, str(a), str(b), lineterm=""))


def save(row: Versioned, write: Callable[[], None], fields: Collection[str] | None) -> None:
    """Save a row as `Model.save` would, and keep the rules: it is what the models' `save` does.

    A new row's content is checked; a saved one's can't change (Conflict); the one that becomes active takes the place
    of another. `fields`: what is saved, None for all.
    """
    with changing(row.workspace_id):
        before: Versioned | None = type(row).objects.filter(pk=row.pk).first()
        if before is None:
            check(row)
            if _named(type(row), row.workspace_id, row.name).filter(version=row.version).exists():
                raise Conflict(f"{row} exists; its next version is made with create_new_version.")
        else:
            _refuse_changes(before, row, fields)
        becomes_active = row.is_active and not (before and before.is_active) and _saves("is_active", fields)
        if becomes_active:
            _make_way(row)
        write()
        _tell_of_save(row, before, fields, becomes_active=becomes_active)


def check(row: Versioned) -> None:
    """Raises Invalid, PromptInvalid or WorkflowInvalid, which name the fault of a row that is to be saved."""
    if not isinstance(row.name, str) or not row.name.strip() or len(row.name) > _MAX_NAME:
        raise Invalid(f"name: 1 to {_MAX_NAME} characters.")
    text = "\n".join([row.name, row.note, *_canonical(row)])
    if len(text) > _MAX_CHARS:
        raise TooLarge(f"A version may have {_MAX_CHARS} characters as JSON.")
    if any(escape in text for escape in ("\0", "\\u0000")) or storable(text) != text:
        raise Invalid("A version holds only characters that can be stored: no NUL, no lone surrogate.")
    row.check_content()


@contextmanager
def changing(workspace_id: UUID) -> Iterator[None]:
    """A transaction that changes the workspace's configuration; others wait until it ends."""
    with transaction.atomic():
        generation.bump(workspace_id)
        yield


def _kind(kind: type[Versioned]) -> str:
    return str(Activation.Kind.PROMPT if issubclass(kind, Prompt) else Activation.Kind.WORKFLOW)


def _named(kind: type[Any], workspace_id: UUID, name: str) -> QuerySet[Any]:
    return kind.objects.filter(workspace_id=workspace_id, name=name)  # type: ignore[no-any-return]  # its manager's


def _current(kind: type[Versioned], workspace_id: UUID, name: str) -> int | None:
    active = _named(kind, workspace_id, name).filter(is_active=True)
    return active.values_list("version", flat=True).first()


def _split_of(kind: type[Versioned], workspace_id: UUID, name: str) -> QuerySet[PromptSplit]:
    rows = PromptSplit.objects.filter(workspace_id=workspace_id, name=name)
    return rows if issubclass(kind, Prompt) else rows.none()


def _switch_to(row: Versioned, action: str, user_id: int | None) -> None:
    _make_way(row)
    _named(type(row), row.workspace_id, row.name).filter(pk=row.pk).update(is_active=True)
    _record(type(row), row.workspace_id, row.name, action, version=row.version, user_id=user_id)


def _make_way(row: Versioned) -> None:
    """Nothing else answers under the name."""
    _named(type(row), row.workspace_id, row.name).filter(is_active=True).exclude(pk=row.pk).update(is_active=False)
    _split_of(type(row), row.workspace_id, row.name).delete()


def _record(
    kind: type[Versioned],
    workspace_id: UUID,
    name: str,
    action: str,
    *,
    version: int | None,
    user_id: int | None,
    detail: dict[str, int] | None = None,
) -> None:
    Activation.objects.create(
        workspace_id=workspace_id,
        kind=_kind(kind),
        name=name,
        version=version,
        action=action,
        detail=detail or {},
        user_id=user_id,
    )
    signal = getattr(signals, f"{_kind(kind)}_{action}")
    told = {"sender": kind, "workspace_id": workspace_id, "name": name, "version": version, "user_id": user_id}
    transaction.on_commit(partial(signal.send_robust, **told), robust=True)


def _states(kind: type[Versioned], workspace_id: UUID, name: str, known: set[int]) -> list[int | None]:
    """What answered one after another, without what was undone; None: no version, or several side by side."""
    rows = Activation.objects.filter(workspace_id=workspace_id, kind=_kind(kind), name=name)
    latest = rows.exclude(action=Action.CREATED).order_by("-id").values_list("action", "version", "detail")
    states: list[int | None] = []
    for action, version, detail in reversed(latest[:_MAX_HISTORY]):
        if action == Action.ROLLED_BACK:
            states = states[:-1]
            while states and states[-1] != version:
                states.pop()
            states = states or [version]
        elif action == Action.SPLIT and not detail:
            states = states[:-1] if states and states[-1] is None else states
        else:
            state = version if action == Action.ACTIVATED else _NO_VERSION
            if not states or states[-1] != state:
                states.append(state)
    return states


def _check_shares(name: str, shares: Mapping[int, int], versions: Collection[int]) -> None:
    known = set(versions)
    if len(shares) > _MAX_SHARES:
        raise Invalid(f"shares: at most {_MAX_SHARES} versions side by side.")
    for version, share in shares.items():
        if version not in known:
            raise Invalid(f"shares: there is no version {version} of the prompt {name!r}.")
        if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= 100:
            raise Invalid(f"shares: version {version} gets a whole number of percent from 1 to 100.")
    if shares and sum(shares.values()) != 100:
        raise Invalid(f"shares: they add up to {sum(shares.values())}, not to 100.")


def _canonical(row: Versioned) -> list[str]:
    content = {field: getattr(row, field) for field in type(row).CONTENT}
    try:
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False).split("\n")
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid("A version is plain JSON.") from error


def _saves(field: str, fields: Collection[str] | None) -> bool:
    return fields is None or field in fields


def _refuse_changes(before: Versioned, row: Versioned, fields: Collection[str] | None) -> None:
    for field in type(row).FIXED:
        named = _saves(field, fields) or _saves(field.removesuffix("_id"), fields)
        if named and field not in row.get_deferred_fields() and _differ(getattr(before, field), getattr(row, field)):
            raise Conflict(
                f"{before} can't be changed ({field.removesuffix('_id')}): runs and logs refer to it."
                " Make a new version with create_new_version."
            )


def _differ(a: Any, b: Any) -> bool:
    """As they are stored: a tuple is a list there, and an id may be given as text."""
    return json.dumps(a, sort_keys=True, default=str) != json.dumps(b, sort_keys=True, default=str)


def _tell_of_save(
    row: Versioned, before: Versioned | None, fields: Collection[str] | None, *, becomes_active: bool
) -> None:
    tell = partial(_record, type(row), row.workspace_id, row.name, version=row.version)
    author = row.created_by_id if before is None else None
    if before is None:
        tell(Action.CREATED, user_id=author)
    if becomes_active:
        tell(Action.ACTIVATED, user_id=author)
    elif before is not None and before.is_active and not row.is_active and _saves("is_active", fields):
        tell(Action.DEACTIVATED, user_id=None)
