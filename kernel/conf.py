"""The `DJANGO_CHAIN` setting: one dict, parsed once into typed, frozen objects.

    from kernel.conf import config
    config().chat.lease_seconds

Keys are upper case in the setting and lower case here. A wrong or unknown key is an error of `manage.py check`
(see kernel.checks) that names the key and the nearest right one.
"""

import difflib
import re
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from django.conf import settings
from django.core.signals import setting_changed
from msgspec import Meta, Struct, field

from kernel.errors import Misconfigured

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, rename="upper", kw_only=True):
    """A part of the setting; its fields are the keys."""


class ModelAlias(Section, frozen=True):
    """A name for a model with its provider and bounds. All times are in seconds."""

    provider: str
    model: str
    #: Passed to the provider's factory as they stand (`base_url`, `api_key`, `temperature`, …).
    options: dict[str, Any] = field(default_factory=dict)
    connect_timeout: Seconds = 5.0
    first_token_timeout: Seconds = 30.0
    between_tokens_timeout: Seconds = 20.0
    total_timeout: Seconds = 300.0
    #: Tries after the first one, and only before the first token.
    max_retries: Annotated[int, Meta(ge=0, le=10)] = 2
    #: Calls of this process at once; more wait in a queue that is fair between workspaces. None: no bound.
    max_concurrent: Count | None = None
    #: How long a call may wait in that queue.
    queue_timeout: Seconds = 30.0
    #: The model's answer in tokens; sent to the provider. None: the provider's own bound.
    max_output_tokens: Count | None = None
    #: The model's window, prompt and answer together, in tokens. None: unknown, only the provider's refusal limits.
    context_tokens: Annotated[int, Meta(ge=128)] | None = None
    #: How its tokens are counted: a name of llm.registry.tokenizers, with what it takes behind a colon.
    tokenizer: str = "estimate"
    #: What becomes of a prompt that is longer: what may be left out is, or it is refused.
    overflow: Literal["trim", "refuse"] = "trim"


class Route(Section, frozen=True):
    """An alias over several models. Another one is tried only before the first token."""

    models: Annotated[list[str], Meta(min_length=1, max_length=20)]
    strategy: Literal["fallback", "round_robin", "weighted", "least_busy"] = "fallback"
    #: For `weighted`, one for each model.
    weights: list[Count] = field(default_factory=list)


class BudgetRule(Section, frozen=True):
    """A bound on what a workspace or each of its people may use; see docs/cost.md."""

    kind: Literal["messages_per_minute", "concurrent_runs", "tokens_per_day", "money_per_month"]
    limit: Annotated[float, Meta(gt=0)]
    per: Literal["workspace", "user"] = "workspace"


class EmbeddingModel(Section, frozen=True):
    """An embedding model: a provider's name and what it takes."""

    provider: str = "wordllama"
    model: str = "l2_supercat_256"
    dimension: Annotated[int, Meta(ge=1, le=16_000)] = 256
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: Count = 64


class Embeddings(EmbeddingModel, frozen=True):
    """The embedding model of new collections, and others by alias that collections may have instead."""

    models: dict[str, EmbeddingModel] = field(default_factory=dict)


class Llm(Section, frozen=True):
    """Models by alias, and the providers beside the built-in ones (`name: "module:factory"`)."""

    models: dict[str, ModelAlias] = field(
        default_factory=lambda: {"default": ModelAlias(provider="fake", model="fake")}
    )
    default_model: str = "default"
    #: Aliases over several models; a name stands in one of the two.
    routes: dict[str, Route] = field(default_factory=dict)
    providers: dict[str, str] = field(default_factory=dict)
    max_answer_chars: Count = 200_000
    #: Failures in a row after which a model is left alone, and for how many seconds.
    breaker_failures: Count = 5
    breaker_seconds: Seconds = 30.0
    #: Retries may be this share of a model's calls, so that an outage is not doubled by our own tries.
    retry_share: Annotated[float, Meta(ge=0, le=1)] = 0.2
    #: Calls that may wait for a place of one model.
    max_waiting: Count = 500
    #: What rows in the database may name: base URLs, and variables of the environment that hold keys.
    allowed_base_urls: list[str] = field(default_factory=list)
    allowed_key_variables: list[str] = field(default_factory=list)
    #: Keys at rest are encrypted with the first and read with any; empty: a key derived from SECRET_KEY.
    encryption_keys: list[str] = field(default_factory=list)
    #: What the interaction log keeps of prompts and answers.
    log_content: Literal["full", "redacted", "none"] = "redacted"
    #: Days that the interaction log keeps a row. None: for ever.
    log_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    #: Registered names, run around every run in this order; and LangChain callback handlers.
    middleware: list[str] = field(default_factory=list)
    callbacks: list[str] = field(default_factory=list)
    #: `{"validator": name, …options}`, for every question and for every answer.
    input_validators: list[dict[str, Any]] = field(default_factory=list)
    output_validators: list[dict[str, Any]] = field(default_factory=list)
    #: Budgets of every workspace, beside those in the database.
    budgets: list[BudgetRule] = field(default_factory=list)
    #: Answer tokens that a budget holds back for a call whose model has no bound of its own.
    reserve_output_tokens: Count = 4096
    #: A whole run, in seconds; a workflow may ask for less.
    workflow_timeout: Seconds = 600.0
    max_calls_per_run: Count = 50


class Memory(Section, frozen=True):
    """What a conversation remembers unless its workflow says otherwise."""

    kind: str = "buffer_window"
    store: str = "postgres"
    #: Messages a window keeps.
    window: Count = 20
    #: Messages a `buffer` may keep, newest first to stay: no prompt grows without end.
    max_messages: Count = 500
    redis_ttl: Seconds = 86_400.0
    #: Tokens of the messages that a `token_window` keeps.
    tokens: Annotated[int, Meta(ge=16)] = 2000


class VectorStore(Section, frozen=True):
    """Where vectors live and how documents are cut. Sizes are in characters."""

    backend: str = "pgvector"
    default_collection: str = "default"
    chunk_size: Count = 700
    chunk_overlap: Annotated[int, Meta(ge=0)] = 80
    max_document_bytes: Count = 10_485_760
    #: A worker's claim on a document, and how often one is tried when what it needs is away.
    ingest_lease: Seconds = 30.0
    ingest_attempts: Count = 5
    #: Vectors that are kept so that the same text is not embedded again: for how long unused, and how many a workspace.
    embedding_cache_days: Count = 30
    embedding_cache_rows: Count = 200_000
    #: Characters of a document's text; more are refused.
    max_text_chars: Count = 5_000_000
    #: A parser's process: its time in seconds, its memory, and how many of them a process of ours runs at once.
    parse_timeout: Seconds = 30.0
    parse_memory_bytes: Annotated[int, Meta(ge=134_217_728)] = 536_870_912
    parse_processes: Count = 2
    #: Documents by URL: what may be asked beside public https addresses on the usual ports, and for how long.
    fetch_http: bool = False
    fetch_ports: list[Annotated[int, Meta(ge=1, le=65_535)]] = field(default_factory=lambda: [80, 443])
    fetch_allowed_hosts: list[str] = field(default_factory=list)
    fetch_timeout: Seconds = 20.0
    #: Of one person over REST, in all processes together.
    searches_per_minute: Count = 300
    uploads_per_minute: Count = 1000
    #: Vectors of a set in PostgreSQL from which it gets an approximate index, what that is over, and its memory.
    index_rows: Count = 20_000
    index_type: Literal["halfvec", "vector"] = "halfvec"
    index_memory_bytes: Annotated[int, Meta(ge=67_108_864)] = 536_870_912
    #: What each backend takes, by its name: where it is, how long it may take.
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


class Chat(Section, frozen=True):
    """Sockets and turns. Sizes are in bytes unless said otherwise, times in seconds."""

    #: Origins whose cookie sockets are served, as `scheme://host[:port]`; empty: only the page's own origin.
    allowed_origins: list[str] = field(default_factory=list)
    max_frame_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    max_text_chars: Count = 32_000
    hello_timeout: Seconds = 5.0
    token_lifetime: Seconds = 3600.0
    #: A run whose lease ran out is taken over by another process.
    lease_seconds: Annotated[float, Meta(ge=1)] = 6.0
    renew_seconds: Seconds = 1.0
    sweep_seconds: Seconds = 1.0
    max_attempts: Count = 3
    #: Unfinished turns that one session may have, the running one included.
    max_turns_per_session: Count = 8
    max_turns_per_process: Count = 1000
    max_sockets_per_process: Count = 10_000
    #: Rows that a resume replays; a cursor further behind gets `reset` and the first page.
    replay_rows: Count = 1000
    page_rows: Count = 50
    #: Ticks of the flusher: from the first to the second as load grows.
    flush_min: Seconds = 0.01
    flush_max: Seconds = 0.1
    buffer_ttl: Seconds = 3600.0
    #: A watched stream that is silent for this long is compared with its buffer.
    repair_seconds: Seconds = 1.0
    #: Frames and bytes that wait for one socket; a slower one is left behind and reads its range.
    outbox_frames: Count = 64
    outbox_bytes: Count = 262_144
    slow_seconds: Seconds = 5.0
    #: Bytes a client may have unacknowledged (`seen`) on a server whose send never waits.
    credit_bytes: Count = 262_144
    flow_control: Literal["auto", "credit", "off"] = "auto"
    drain_seconds: Seconds = 20.0
    reconnect_spread: Seconds = 5.0
    #: How often open sockets are asked whether their person is still signed in and a member.
    revalidate_seconds: Seconds = 60.0
    commands_per_minute: Count = 600
    #: Default workflow for sessions without one; None: the built-in one (memory, retrieve, prompt, llm).
    default_workflow: list[dict[str, Any]] | None = None


class Redis(Section, frozen=True):
    """How Redis or Valkey is reached. `url` takes redis://, rediss:// and unix:// forms."""

    url: str = "redis://localhost:6379/0"
    prefix: str = "chain"
    max_connections: Count = 32
    timeout: Seconds = 1.0


class Database(Section, frozen=True):
    """Threads for units of work, and how many units may wait for one. `prepare`: a connection may keep statements."""

    threads: Count = 8
    max_waiting: Count = 2000
    prepare: bool = True


class Config(Section, frozen=True):
    """The whole `DJANGO_CHAIN` setting."""

    llm: Llm = field(default_factory=Llm)
    embeddings: Embeddings = field(default_factory=Embeddings)
    memory: Memory = field(default_factory=Memory)
    vector_store: VectorStore = field(default_factory=VectorStore)
    chat: Chat = field(default_factory=Chat)
    redis: Redis = field(default_factory=Redis)
    database: Database = field(default_factory=Database)


@cache
def config() -> Config:
    """The parsed setting. Raises Misconfigured with the key and the fix."""
    return parse(getattr(settings, "DJANGO_CHAIN", {}))


def parse(raw: object) -> Config:
    """Parse a `DJANGO_CHAIN` dict. Raises Misconfigured with the path of the key at fault."""
    try:
        parsed = msgspec.convert(raw, Config, strict=True)
    except msgspec.ValidationError as error:
        raise Misconfigured(_explain(str(error))) from error
    _check_names(parsed.llm)
    return parsed


def _check_names(llm: Llm) -> None:
    known = ", ".join(sorted({*llm.models, *llm.routes})) or "none"
    if llm.default_model not in llm.models and llm.default_model not in llm.routes:
        raise Misconfigured(
            f"DJANGO_CHAIN['LLM']['DEFAULT_MODEL'] is {llm.default_model!r}, which neither LLM['MODELS'] nor"
            f" LLM['ROUTES'] defines (defined: {known}). Add it there or choose one of them."
        )
    for name, route in llm.routes.items():
        where = f"DJANGO_CHAIN['LLM']['ROUTES'][{name!r}]"
        if name in llm.models:
            raise Misconfigured(f"{where} has the name of a model in LLM['MODELS']; choose another.")
        if unknown := [model for model in route.models if model not in llm.models]:
            raise Misconfigured(
                f"{where} names {unknown[0]!r}, which LLM['MODELS'] does not define (defined: {known})."
            )
        if route.strategy == "weighted" and len(route.weights) != len(route.models):
            raise Misconfigured(f"{where} is weighted, so WEIGHTS needs {len(route.models)} numbers, one a model.")


def _explain(problem: str) -> str:
    """Turn msgspec's message into one that names the key as the setting writes it, and the fix."""
    message, _, path = problem.partition(" - at `$")
    keys = re.findall(r"\.([A-Z0-9_]+)|\[(\.\.\.|\d+)\]", path.rstrip("`"))
    where = "DJANGO_CHAIN" + "".join(f"[{name!r}]" if name else "[…]" for name, _ in keys)
    unknown = re.search(r"unknown field `(.+?)`", message)
    if unknown:
        known = _keys_at([name for name, _ in keys])
        near = difflib.get_close_matches(unknown[1].upper(), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
        return f"{where} has an unknown key {unknown[1]!r}; {fix}"
    return f"{where}: {message}."


def _keys_at(path: list[str]) -> list[str]:
    """The known keys of the section that `path` leads to."""
    here: Any = Config
    for name in path:
        if not name:  # a dict's value: its alias sections
            here = ModelAlias
            continue
        here = get_type_hints(here).get(name.lower(), here) if isinstance(here, type) else here
    if not (isinstance(here, type) and issubclass(here, Struct)):
        here = ModelAlias
    return [f.encode_name for f in msgspec.structs.fields(here)]


def _forget(*, setting: str, **_: object) -> None:
    if setting == "DJANGO_CHAIN":
        config.cache_clear()


setting_changed.connect(_forget, dispatch_uid="kernel.conf")
