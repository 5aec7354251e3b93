"""What a workflow step is: validated options and a `run`."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeAlias
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic_core import CoreSchema
from typing_extensions import override

from llm.events import Event
from llm.state import WorkflowState

#: A name that a step writes its value to; prompts, conditions and arguments read it.
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]


class Step(BaseModel):
    """A step's options are its fields; an unknown one is refused. Steps hold no state: one object serves all runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: It takes time: people are told when it starts, not only when it has ended.
    slow: ClassVar[bool] = False
    #: The steps that it holds run beside others: nobody sees their text while it comes.
    aside: ClassVar[bool] = False

    type: str

    def run(self, state: WorkflowState) -> AsyncIterator[Event]:
        """Do the step: read and write `state`, yield what people should see. An async generator."""
        raise NotImplementedError

    def inner(self) -> Mapping[str, Sequence["Step"]]:
        """The lists of steps that it holds, by the path to them behind the step's own (".branches.a")."""
        return {}

    def models(self) -> Iterator[tuple[str, str]]:
        """The models that it calls: the path to the option behind the step's own (".model"), and the alias."""
        return iter(())

    @property
    def speaks(self) -> bool:
        """Its text may be the run's answer."""
        return not self.aside and any(step.speaks for steps in self.inner().values() for step in steps)

    @property
    def holds_back(self) -> bool:
        """It may have the text before it said anew, so that nobody may see that yet."""
        return not self.aside and any(step.holds_back for steps in self.inner().values() for step in steps)


holders: WeakSet[type[BaseModel]] = WeakSet()


class Holds(BaseModel):
    """A model with `list[AnyStep]` among its fields; the grammar builds it anew when a step was registered."""

    @classmethod
    @override
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        holders.add(cls)


class HoldingStep(Step, Holds):
    """A step that holds steps: write `list[AnyStep]` in its fields, and say in `inner` where they are."""


class _Registered:
    """Stands for the union of all steps that are registered, which llm.grammar knows."""

    union: Any = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if self.union is None:  # pydantic then leaves the model unfinished, as after a name that is not defined yet
            raise PydanticUndefinedAnnotation("AnyStep", "no step is registered yet")
        return handler.generate_schema(self.union)


registered = _Registered()
AnyStep: TypeAlias = Annotated[Step, registered]
