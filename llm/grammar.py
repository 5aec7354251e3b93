"""The grammar of workflows: one pydantic union over all steps that are registered.

It is built when it is first needed, and anew after a step was registered. A registered class keeps its own fields; a
plain factory takes any option and judges it itself. Where a step holds steps, the union is its own part again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, Literal, Self, Union, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
)
from pydantic import model_validator as check
from typing_extensions import override

from kernel.errors import Misconfigured
from llm.answer_cache import CacheOptions
from llm.errors import WorkflowInvalid
from llm.registry import Factory, workflow_steps
from llm.state import WorkflowState
from llm.steps.base import Step, holders, registered
from llm.validators import Validators

SCHEMA_VERSION = 1
#: A message quotes what was given only so far.
_MAX_MESSAGE = 500


class WorkflowOptions(BaseModel):
    """What holds for the whole of a workflow."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    #: Seconds for a run; LLM["WORKFLOW_TIMEOUT"] holds too.
    timeout: float | None = Field(default=None, gt=0, le=86_400)
    cache: CacheOptions | None = None
    #: `{"validator": name, …options}`, beside those of the setting.
    input_validators: Validators = Field(default_factory=list)
    output_validators: Validators = Field(default_factory=list)
    #: What the interaction log keeps of prompts and answers; null: as the setting says.
    log_content: Literal["full", "redacted", "none"] | None = None


class WorkflowDefinition(WorkflowOptions):
    """A definition that has been read; `Grammar` gives `steps` its real type."""

    steps: list[Step]


class FactoryStep(Step):
    """A step that a plain factory makes: `factory(options)` returns an object with `run`."""

    model_config = ConfigDict(extra="allow")

    _made: Any = PrivateAttr(default=None)

    @check(mode="after")
    def _make(self) -> Self:
        try:
            made = workflow_steps.get(self.type)(dict(self.__pydantic_extra__ or {}))
        except (TypeError, LookupError) as error:
            raise ValueError(str(error)) from error
        if not hasattr(made, "run"):
            raise ValueError(f"the factory of {self.type!r} returned an object without 'run'")
        self._made = made
        return self

    @override
    def run(self, state: WorkflowState) -> Any:
        return self._made.run(state)

    @property
    @override
    def speaks(self) -> bool:
        return bool(getattr(self._made, "speaks", False))


@dataclass(frozen=True, slots=True)
class Grammar:
    """The steps of one revision of the registry."""

    revision: int
    names: tuple[str, ...]
    #: Reads an object; a bare list is one with nothing but `steps`.
    definition: TypeAdapter[WorkflowDefinition]
    whole: TypeAdapter[Any]

    def read(self, definition: Mapping[str, Any]) -> WorkflowDefinition:
        """Raises WorkflowInvalid with the path to the first fault."""
        try:
            return self.definition.validate_python(definition)
        except ValidationError as error:
            raise WorkflowInvalid(self._explained(definition, error)) from error

    def _explained(self, definition: Any, error: ValidationError) -> str:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = "".join(_written(definition, fault["loc"])).removeprefix(".")
        kind = fault["type"]
        if kind == "union_tag_invalid" and isinstance(fault["input"], Mapping):
            given = str(fault["input"].get("type"))[:60]
            return f"{where}.type: there is no step {given!r}; known: {', '.join(self.names)}."
        if kind in ("union_tag_not_found", "model_attributes_type"):
            return f"{where}.type: a step is an object with a 'type'; known: {', '.join(self.names)}."
        message = str(fault["msg"]).removeprefix("Value error, ").removesuffix(".")[:_MAX_MESSAGE]
        # A step's own check of a list or an object begins with the rest of the path.
        return f"{where}{'' if message.startswith(('[', '.')) else ': '}{message}."


def _written(definition: Any, loc: Sequence[int | str]) -> Iterator[str]:
    """The path as its writer would write it: without the tags of the unions that pydantic has gone through."""
    place, fresh = definition, False
    for part in loc:
        if isinstance(part, int):
            yield f"[{part}]"
            place, fresh = place[part] if isinstance(place, list) and part < len(place) else None, True
        elif part.startswith("?") or (fresh and isinstance(place, Mapping) and place.get("type") == part):
            fresh = False
        elif isinstance(place, Mapping):
            yield f".{part}"
            place, fresh = place.get(part), True


_lock = Lock()
_latest: Grammar | None = None


def grammar() -> Grammar:
    """The grammar of the steps that are registered now."""
    global _latest  # noqa: PLW0603  one for the process, like the registry that it follows
    latest = _latest
    if latest is None or latest.revision != workflow_steps.revision:
        with _lock:
            latest = _latest
            if latest is None or latest.revision != workflow_steps.revision:
                latest = _latest = _build()
    return latest


def json_schema() -> dict[str, Any]:
    """The JSON schema of a definition, for the steps that are registered."""
    schema = grammar().whole.json_schema(by_alias=True)
    for kind in schema["$defs"].values():
        if "const" in kind.get("properties", {}).get("type", {}):
            # It has a default in Python, where the class says it.
            kind["required"] = ["type", *kind.get("required", [])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:django-chain:workflow:{SCHEMA_VERSION}",
        "title": f"A workflow of Django Chain, schema {SCHEMA_VERSION}",
        **schema,
    }


def _build() -> Grammar:
    revision, names = workflow_steps.revision, workflow_steps.names()
    kinds = [_kind(name, workflow_steps.get(name)) for name in names]
    parts = tuple(Annotated[kind, WrapValidator(_explain)] for kind in kinds)
    any_step: Any = Annotated[Union[parts], Field(discriminator="type")]  # noqa: UP007  the parts are a tuple
    _rebuild(any_step)
    definition: Any = create_model("Workflow", __base__=WorkflowDefinition, steps=(list[any_step], ...))
    return Grammar(revision, tuple(names), TypeAdapter(definition), TypeAdapter(Union[list[any_step], definition]))  # noqa: UP007


def _rebuild(any_step: Any) -> None:
    """Have the models that hold steps know `any_step`. Unfinish all of them first: a finished one is taken as it is."""
    registered.union = any_step
    stale = list(holders)
    for model in stale:
        for name in ("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"):
            if name in vars(model):
                delattr(model, name)
        model.__pydantic_complete__ = False
    for model in stale:
        model.model_rebuild(force=True)


def _explain(options: Any, build: ValidatorFunctionWrapHandler) -> Any:
    """A part that is missing or not set up is a fault of the step that names it."""
    try:
        return build(options)
    except Misconfigured as error:
        raise ValueError(error.message) from error


def _kind(name: str, factory: Factory | type[Step]) -> type[Step]:
    """The model of a step's options, whose `type` is the very name under which it is registered."""
    base: type[Step] = FactoryStep
    if isinstance(factory, type) and issubclass(factory, Step):
        base = factory
        if get_args(base.model_fields["type"].annotation) == (name,):
            return base
    named: Callable[..., type[Step]] = cast("Any", create_model)
    return named(f"{name.title().replace('_', '')}Step", __base__=base, type=(Literal[name], name))
