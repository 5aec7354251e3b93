"""Names for the parts that teams plug in: providers, stores, memories, parsers, steps, validators.

An entry is an object or a "module:name" string that is imported on first use, so that naming a provider at start-up
imports no AI library. The public face is django_chain.providers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from kernel.conf import config
from kernel.errors import Misconfigured

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    target: T | str
    extra: str = ""


class Registry(Generic[T]):
    """Name → `T`. `noun` is what messages call an entry; `setting` gives more "module:name" entries, read late."""

    def __init__(self, noun: str, *, setting: Callable[[], Mapping[str, str]] = dict) -> None:
        self._noun = noun
        self._setting = setting
        self._entries: dict[str, _Entry[T]] = {}
        #: Grows with each change: what was built from the entries is built anew.
        self.revision = 0

    def add(self, name: str, target: T | str, *, extra: str = "") -> None:
        """Give `target` a name. `extra` is the optional dependency that it needs, as in `django-chain[extra]`.

        Raises Misconfigured if another object has the name. The same object may come twice: by its string and by its
        decorator, or after a reload.
        """
        known = self._entries.get(name)
        if known is not None and _place(known.target) != _place(target):
            raise Misconfigured(
                f"The {self._noun} {name!r} is already registered as {_place(known.target)};"
                f" {_place(target)} needs another name."
            )
        self._entries[name] = _Entry(target, extra or (known.extra if known else ""))
        self.revision += 1

    def register(self, name: str, *, extra: str = "") -> Callable[[F], F]:
        """`add` as a decorator."""

        def decorate(target: F) -> F:
            self.add(name, target, extra=extra)  # type: ignore[arg-type]  # a decorator can't know T
            return target

        return decorate

    def remove(self, name: str) -> None:
        """Forget a name, so that a test can leave the registry as it was."""
        self._entries.pop(name, None)
        self.revision += 1

    def names(self) -> list[str]:
        return sorted({*self._entries, *self._setting()})

    def get(self, name: str) -> T:
        """The object of this name, imported if need be.

        Raises Misconfigured that names the known ones, the missing package with its extra, or the wrong import path.
        """
        entry = self._entries.get(name)
        if entry is None and name in self._setting():
            entry = _Entry(self._setting()[name])
        if entry is None:
            known = ", ".join(self.names()) or "none"
            raise Misconfigured(f"There is no {self._noun} {name!r}; known: {known}.")
        if isinstance(entry.target, str):
            loaded: T = self._load(name, entry.target, entry.extra)
            self._entries[name] = _Entry(loaded, entry.extra)
            return loaded
        return entry.target

    def _load(self, name: str, path: str, extra: str) -> T:
        module, _, attribute = path.partition(":")
        what = f"The {self._noun} {name!r}"
        try:
            loaded: T = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(f"{error.name}.")):
                raise Misconfigured(f"{what} is at {path!r}, but there is no module {error.name!r}.") from error
            fix = f'pip install "django-chain[{extra}]"' if extra else f"install the package of {error.name!r}"
            raise Misconfigured(f"{what} needs {error.name!r}, which is not installed: {fix}.") from error
        except AttributeError as error:
            raise Misconfigured(f"{what} is at {path!r}, but {module!r} has no {attribute!r}.") from error
        return loaded


def _place(target: object) -> str:
    """Where an object lives, in the form of the strings: equal places are the same entry."""
    if isinstance(target, str):
        return target
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    return f"{module}:{name}" if module and name and "<" not in name else f"{target!r} at {id(target):#x}"


Factory = Callable[[dict[str, Any]], Any]

llm_providers: Registry[Factory] = Registry("LLM provider", setting=lambda: config().llm.providers)
embedding_providers: Registry[Factory] = Registry("embedding provider")
vector_stores: Registry[Factory] = Registry("vector store")
memories: Registry[Factory] = Registry("memory kind")
memory_stores: Registry[Factory] = Registry("memory store")
parsers: Registry[Factory] = Registry("parser")
workflow_steps: Registry[Factory] = Registry("workflow step")
validators: Registry[Factory] = Registry("validator")
#: Makers of the messages of prompts of the kind "custom": llm.prompts.Renderer.
prompt_renderers: Registry[Factory] = Registry("prompt renderer")
#: Functions that a `transform` step may call, and tools that a `tool` or `agent` step may.
transforms: Registry[Callable[..., Any]] = Registry("transform")
tools: Registry[Factory] = Registry("tool")
#: What runs around every run, and LangChain callback handlers; LLM["MIDDLEWARE"] and LLM["CALLBACKS"] name them.
middleware: Registry[Callable[..., Any]] = Registry("middleware")
callback_handlers: Registry[Factory] = Registry("callback handler")
#: What reads files of an extension (".odt"): (data, name) → vectorstore.parsing.values.Parsed.
document_parsers: Registry[Callable[[bytes, str], Any]] = Registry("document parser")
#: What puts a search's hits in another order; see vectorstore.ranking.
rerankers: Registry[Factory] = Registry("reranker")
#: Caches of whole answers; see llm.answer_cache.
answer_caches: Registry[Factory] = Registry("answer cache")
#: Asked with document ids, in the transaction that keeps an answer made from them: are they all still there?
document_checks: Registry[Callable[..., bool]] = Registry("document check")

#: Makers of functions that count the tokens of a text; see llm.tokens.
tokenizers: Registry[Factory] = Registry("tokenizer")

tokenizers.add("estimate", "llm.estimate:create")
tokenizers.add("file", "llm.tokens:create_from_file")
tokenizers.add("tiktoken", "llm.tokens:create_tiktoken")
validators.add("rules", "llm.rules:Rules")
answer_caches.add("exact", "llm.exact_cache:ExactCache")
llm_providers.add("openai", "llm.providers.openai:provider")
llm_providers.add("google", "llm.providers.google:provider", extra="google")
llm_providers.add("huggingface", "llm.providers.huggingface:provider", extra="huggingface")
llm_providers.add("fake", "llm.providers.fake:provider")
parsers.add("str", "llm.parsers:StrParser")
parsers.add("json", "llm.parsers:JsonParser")
parsers.add("pydantic", "llm.parsers:SchemaParser")
parsers.add("list", "llm.parsers:ListParser")
parsers.add("regex", "llm.parsers:RegexParser")
for _name in ("join", "pick", "first", "length", "to_json", "from_json", "template"):
    transforms.add(_name, f"llm.transforms:{_name}")
workflow_steps.add("prompt", "llm.steps.prompt:PromptStep")
workflow_steps.add("llm", "llm.steps.llm:LlmStep")
workflow_steps.add("parser", "llm.steps.parser:ParserStep")
workflow_steps.add("branch", "llm.steps.branch:BranchStep")
workflow_steps.add("parallel", "llm.steps.parallel:ParallelStep")
workflow_steps.add("map", "llm.steps.map:MapStep")
workflow_steps.add("transform", "llm.steps.transform:TransformStep")
workflow_steps.add("tool", "llm.steps.tool:ToolStep")
workflow_steps.add("agent", "llm.steps.agent:AgentStep")
workflow_steps.add("workflow", "llm.steps.workflow:WorkflowStep")
