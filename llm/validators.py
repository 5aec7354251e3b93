"""Validators judge questions before anything is done with them, and answers before anybody sees them.

`register_validator(name)` registers a factory: `factory(config)` returns an object with `check(text, context)`, or
such a function; sync or async. It returns `PASS`, `refuse(message)` or `replace(text)`. One that raises, or takes
longer than a few seconds, lets nothing through.
"""

import asyncio
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, Field, ValidationError

from kernel.conf import config
from kernel.errors import ChainError, Misconfigured, Unavailable
from kernel.text import storable
from llm.registry import validators

logger = logging.getLogger(__name__)

#: Seconds that one validator may take for one text.
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Context:
    """Whose text it is."""

    workspace_id: UUID
    user_id: int | None
    session_id: UUID | None
    run_id: UUID
    #: The question is judged ("input") or the answer ("output").
    of: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a validator says: `refused` is shown to people, `text` takes the place of what was judged."""

    refused: str | None = None
    text: str | None = None


PASS = Verdict()


def refuse(message: str = "") -> Verdict:
    return Verdict(refused=message)


def replace(text: str) -> Verdict:
    return Verdict(text=text)


class ValidatorFailed(Unavailable):
    code = "validator_failed"
    default_message = "A validator of this workspace failed, so nothing was let through; try again shortly."


def build(options: Mapping[str, Any]) -> Any:
    """The validator that `{"validator": name, …options}` means. Raises ValueError that says what is wrong."""
    name = options.get("validator")
    if not isinstance(name, str):
        raise ValueError(f"'validator' names a registered validator; known: {', '.join(validators.names())}.")  # noqa: TRY004
    try:
        built = validators.get(name)({key: value for key, value in options.items() if key != "validator"})
    except Misconfigured as error:
        raise ValueError(error.message) from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{where}: {fault['msg'].removeprefix('Value error, ')}") from error
    except (TypeError, KeyError) as error:
        raise ValueError(f"the validator {name!r} does not take these options.") from error
    if not callable(getattr(built, "check", built)):
        raise ValueError(f"the factory of the validator {name!r} returned nothing that checks.")  # noqa: TRY004
    return built


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    build(options)
    return options


#: For pydantic models: a list of validators whose names and options are known to be good.
Validators: TypeAlias = Annotated[list[Annotated[dict[str, Any], AfterValidator(_checked)]], Field(max_length=20)]


async def judged(text: str, wanted: Sequence[Mapping[str, Any]], context: Context) -> Verdict:
    """What all of them come to, in their order: each sees what the one before left. Raises ValidatorFailed."""
    current = text
    for options in wanted:
        verdict = await _verdict(options, current, context)
        if verdict.refused is not None:
            return verdict
        if verdict.text is not None:
            current = storable(verdict.text)
    return PASS if current == text else Verdict(text=current)


async def _verdict(options: Mapping[str, Any], text: str, context: Context) -> Verdict:
    try:
        built = build(options)
        check = getattr(built, "check", built)
        async with asyncio.timeout(TIMEOUT):
            # A plain function may take its time: it has a thread, and never holds up the other answers.
            if inspect.iscoroutinefunction(check):
                verdict = await check(text, context)
            else:
                verdict = await asyncio.to_thread(check, text, context)
                if inspect.isawaitable(verdict):
                    verdict = await verdict
        if not isinstance(verdict, Verdict):
            raise TypeError("a validator returns PASS, refuse(…) or replace(…)")
    except ChainError:
        raise
    except Exception as error:
        # Whatever went wrong in it: what nobody has judged is not let through.
        logger.error("action=validator_failed validator=%s error=%s", options.get("validator"), type(error).__name__)  # noqa: TRY400
        raise ValidatorFailed from error
    return verdict


def of_setting(of: str) -> list[dict[str, Any]]:
    llm = config().llm
    return llm.input_validators if of == "input" else llm.output_validators
