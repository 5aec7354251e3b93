"""What the documentation lists is what the code has: no more, no less."""

import argparse
import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from django.core.management import load_command_class
from pydantic_core import PydanticUndefined

import llm.errors
from chat.models import MessageStatus
from kernel.conf import Route
from llm import conditions, grammar, ledger, mustache, prompts, registry, spend, template_values, templates, versions
from llm.answer_cache import CacheOptions
from llm.effective import PUBLIC_OPTIONS
from llm.errors import ProviderError
from llm.models import BudgetKind, CallStatus
from llm.providers.fake import FakeChatModel
from llm.rest import prompts as rest_prompts
from tests.docs.pages import DOCS, ROOT, first_column, rows, section
from tests.docs.reference import SECTIONS, keys

_PACKAGES = ["kernel", "accounts", "llm", "memory", "vectorstore", "chat", "frontend", "django_chain"]
_TESTS_OWN = {"fault", "leak"}
_STEPS = [name for name in registry.workflow_steps.names() if name not in _TESTS_OWN]


class TestSettings:
    @pytest.mark.parametrize("heading", SECTIONS)
    def test_keys_types_and_defaults_are_those_of_the_code(self, heading: str) -> None:
        written = [tuple(row[:3]) for row in rows(section("settings.md", heading))]
        assert written == [(f"`{key}`", kind, f"`{default}`") for key, kind, default in keys(SECTIONS[heading])]

    @pytest.mark.parametrize("heading", SECTIONS)
    def test_every_key_says_what_it_means(self, heading: str) -> None:
        assert all(len(row) == 4 and row[3] for row in rows(section("settings.md", heading)))

    def test_a_key_that_nothing_reads_is_said_to_be_one(self) -> None:
        code = "\n".join(path.read_text() for path in _sources() if path.name != "conf.py")
        for heading in SECTIONS:
            for key, *_, meaning in rows(section("settings.md", heading)):
                read = re.search(rf"\.{key.strip('`').lower()}\b", code) is not None
                if not read and not _read_in_conf(key.strip("`")):
                    assert meaning == "Nothing reads this key yet."
                else:
                    assert "Nothing reads" not in meaning

    def test_the_environment_variables_are_those_that_the_settings_read(self) -> None:
        written = {
            row[0].strip("`"): row[1].strip("`") for row in rows(section("settings.md", "Environment variables"))
        }
        assert written == _variables() | {"DATA_DIR": ".data"}

    def test_the_variables_in_the_docstring_of_the_settings_exist(self) -> None:
        tree = ast.parse((ROOT / "django_chain/settings.py").read_text())
        named = re.findall(
            r"\b[A-Z]{2,}(?:_[A-Z]+)*\b", " ".join(row[0] for row in rows(ast.get_docstring(tree) or ""))
        )
        assert set(named) <= {*_variables(), "DATA_DIR"}


class TestCompose:
    def test_the_variables_are_those_of_the_file(self) -> None:
        text = "\n".join(line for line in _compose().splitlines() if not line.lstrip().startswith("#"))
        found = re.findall(r"(?<!\$)\$\{([A-Z_]+):([?-])([^}]*)\}", text)
        table = rows(section("deploy.md", "With compose"))
        written = {row[0].strip("`"): row[1] for row in table if row[0].isupper()}
        assert set(written) == {name for name, _, _ in found}
        for name, sign, default in found:
            if sign == "?":
                assert written[name] == "refused"
            elif default:
                assert written[name] == f"`{default}`"

    def test_the_services_are_those_of_the_file(self) -> None:
        services = re.findall(
            r"^  ([a-z]+):$", _compose().partition("\nservices:")[2].partition("\nvolumes:")[0], re.MULTILINE
        )
        table = rows(section("deploy.md", "With compose"))
        written = [name for row in table if not row[0].isupper() for name in re.findall(r"`(\w+)`", row[0])]
        assert sorted(written) == sorted(services)

    def test_the_connections_of_the_sizing_are_those_of_the_file(self) -> None:
        assert "max_connections=200" in _compose()
        assert '"--workers", "2"' in (ROOT / "Dockerfile").read_text()
        assert "(2 + 2 + 1) \N{MULTIPLICATION SIGN} 12 = 60\nof 180" in section("deploy.md", "Sizing")
        assert _variables()["DATABASE_POOL"] == "12"


class TestWorkflows:
    def test_the_steps_are_those_that_are_registered(self) -> None:
        assert sorted(first_column(section("workflows.md", "Steps").partition("\n### ")[0])) == _STEPS

    @pytest.mark.parametrize("step", _STEPS)
    def test_the_options_and_defaults_of_a_step(self, step: str) -> None:
        kind: Any = registry.workflow_steps.get(step)
        written = {row[0].strip("`"): row[2].strip("`") for row in rows(_tables("workflows.md", step)[0])}
        assert written == {name: _default(field) for name, field in kind.model_fields.items() if name != "type"}

    @pytest.mark.parametrize("step", _STEPS)
    def test_steps_that_are_said_to_start_do(self, step: str) -> None:
        written = {row[0].strip("`"): row[3] for row in rows(section("workflows.md", "Steps").partition("\n### ")[0])}
        kind: Any = registry.workflow_steps.get(step)
        assert ("started" in written[step]) == kind.slow

    def test_the_keys_of_the_whole(self) -> None:
        known = {field.alias or name for name, field in grammar.WorkflowOptions.model_fields.items()}
        assert set(first_column(_tables("workflows.md", "Workflows")[0])) == {"steps", *known}

    def test_the_bounds_are_those_of_the_code(self) -> None:
        from llm import values, workflows
        from llm.steps import map as maps
        from llm.steps import parallel, workflow

        text = section("workflows.md", "Bounds")
        assert [row[1] for row in rows(text)] == [
            str(workflows.MAX_STEPS),
            str(workflows.MAX_DEPTH),
            str(parallel.MAX_BRANCHES),
            f"{maps.MAX_ITEMS}, {maps.MAX_AT_ONCE}",
            str(workflow.MAX_DEPTH),
            str(workflows.MAX_BYTES),
        ]
        assert f"{values.MAX_CHARS:,} characters" in text

    def test_the_operators_of_conditions(self) -> None:
        assert first_column(_tables("workflows.md", "branch")[1]) == list(get_args(conditions.Op))

    def test_the_built_in_parsers_and_transforms(self) -> None:
        assert sorted(first_column(_tables("workflows.md", "parser")[1])) == registry.parsers.names()
        assert sorted(first_column(_tables("workflows.md", "transform")[1])) == registry.transforms.names()

    @pytest.mark.parametrize("name", ["join", "pick", "first", "length", "to_json", "from_json"])
    def test_the_arguments_of_a_transform(self, name: str) -> None:
        written = {
            row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows(section("workflows.md", "transform"))
        }
        assert written[name] == list(inspect.signature(registry.transforms.get(name)).parameters)


def _tables(page: str, heading: str) -> list[str]:
    return [part for part in section(page, heading).split("\n\n") if part.startswith("|")]


class TestNames:
    @pytest.mark.parametrize(
        ("page", "heading", "known"),
        [
            ("providers.md", "Built-in providers", registry.llm_providers),
            ("providers.md", "Embeddings", registry.embedding_providers),
        ],
    )
    def test_providers(self, page: str, heading: str, known: registry.Registry[Any]) -> None:
        assert sorted(row[0].strip("`") for row in rows(section(page, heading))) == known.names()

    def test_kinds_and_stores_of_memory(self) -> None:
        text = (DOCS / "memory.md").read_text()
        kinds, stores = text.split("| store |")
        assert sorted(first_column(kinds)) == registry.memories.names()
        table = ("| store |" + stores).partition("\n\n")[0]
        assert sorted(row[0].strip("`") for row in rows(table)) == registry.memory_stores.names()

    def test_options_of_the_fake_and_those_that_can_be_stored(self) -> None:
        names = [name for row in rows(section("providers.md", "The fake")) for name in re.findall(r"`(\w+)`", row[0])]
        assert set(names) <= set(FakeChatModel.model_fields)
        listed = section("providers.md", "Models in the database").partition("can be stored:")[2].partition(".\n")[0]
        assert set(re.findall(r"`(\w+)`", listed)) == PUBLIC_OPTIONS

    def test_provider_failures(self) -> None:
        failures = [
            each for each in vars(llm.errors).values() if isinstance(each, type) and issubclass(each, ProviderError)
        ]
        codes = {each.code for each in failures if each is not ProviderError}
        assert set(first_column(section("providers.md", "Failures"))) == codes

    def test_strategies_of_a_route(self) -> None:
        assert first_column(section("providers.md", "Routes")) == list(get_args(get_type_hints(Route)["strategy"]))

    def test_statuses_of_an_answer(self) -> None:
        assert first_column(section("operations.md", "Runs and leases")) == [
            str(value) for value in MessageStatus.values
        ]

    def test_statuses_of_a_model_call(self) -> None:
        written = first_column(section("operations.md", "Every model call"))
        assert written == [str(value) for value in CallStatus.values]

    def test_kinds_of_budgets(self) -> None:
        assert first_column(section("cost.md", "Budgets")) == [str(value) for value in BudgetKind.values]

    def test_figures_and_groups_of_spend(self) -> None:
        text = section("cost.md", "Spend")
        assert first_column(text) == list(spend._FIGURES)
        assert re.findall(r"`(\w+)`", text.partition("over at most")[0]) == list(spend.GROUPS)
        assert f"at most {spend.MAX_DAYS} days" in text

    def test_failures_that_cost_nothing(self) -> None:
        named = re.findall(r"`(\w+)`", section("cost.md", "Prices").partition("never received (")[2].partition(")")[0])
        assert set(named) == ledger.UNBILLED

    def test_actions_of_the_log(self) -> None:
        used = {name for path in _sources() for name in re.findall(r"\"action=(\w+)", path.read_text())}
        assert set(first_column(section("operations.md", "Logs"))) == used

    def test_layers_are_the_contract_of_the_linter(self) -> None:
        contract = re.search(r"^layers = (\[.+\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert contract is not None
        layers = [name.strip() for layer in ast.literal_eval(contract[1]) for name in layer.split("|")]
        assert first_column(section("architecture.md", "The house")) == layers


class TestPrompts:
    def test_every_format_is_accepted(self) -> None:
        messages = section("prompts.md", "Formats").partition("`template_format`")[0]
        for shown in first_column(messages):
            prompts.parse_messages([ast.literal_eval(shown)])

    def test_the_formats_of_templates_are_those_of_the_code(self) -> None:
        known = section("prompts.md", "Formats").partition("`template_format`")[2]
        assert first_column(known) == list(templates.FORMATS)
        row = next(row for row in rows(known) if row[0] == "`mustache`")
        for shown in re.findall(r"`([^`]+)`", row[1] + row[2]):
            templates.parse(shown, "mustache")

    @pytest.mark.parametrize("template_format", templates.FORMATS)
    def test_every_template_that_is_said_to_be_refused_is(self, template_format: str) -> None:
        both = section("prompts.md", "What is refused, and why").partition("In mustache:")
        refused = first_column(both[0 if template_format == "f-string" else 2])
        assert len(refused) >= 5
        for template in refused:
            with pytest.raises(ValueError, match=r"."):
                templates.parse(template, template_format)

    def test_the_bounds_are_those_of_the_code(self) -> None:
        formats = section("prompts.md", "Formats")
        assert f"1 to {prompts.MAX_MESSAGES} messages" in formats
        assert f"{templates.MAX_CHARS:,} characters" in formats
        refused = section("prompts.md", "What is refused, and why")
        assert f"{template_values.MAX_BYTES:,} bytes" in refused
        assert f"{template_values.MAX_STEPS:,} steps" in refused
        assert f"{mustache.MAX_DEPTH} deep" in refused

    def test_the_variables_are_those_that_the_step_gives(self) -> None:
        code = (ROOT / "llm/steps/prompt.py").read_text()
        given = re.findall(r'"(\w+)": ', code[code.index("def _render") : code.index("def _passage")])
        table = section("prompts.md", "Variables").partition("Say which")[0]
        assert sorted(first_column(table)) == sorted(given) == sorted(prompts.BUILT_IN)

    def test_the_kinds_are_those_of_the_code(self) -> None:
        for kind, keys_of_kind, *_ in rows(section("prompts.md", "Keep it in the database")):
            keys_named = set(re.findall(r"`(\w+)`", keys_of_kind))
            assert keys_named == prompts.KEYS[kind.strip("`")]

    def test_the_calls_of_versions_are_those_of_the_code(self) -> None:
        for shown in first_column(section("prompts.md", "Change it, and go back").partition("They are")[0]):
            if "(" in shown:
                call: Any = ast.parse(shown.replace("…", "0"), mode="eval").body
                signature = inspect.signature(getattr(versions, call.func.id))
                given = {each.arg for each in call.keywords if each.arg}
                assert [each.id for each in call.args] == [
                    name for name, each in signature.parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD
                ]
                assert given == {name for name, each in signature.parameters.items() if each.kind is each.KEYWORD_ONLY}

    def test_the_calls_over_rest_are_those_of_the_router(self) -> None:
        written = first_column(section("prompts.md", "Over REST"))
        known = [
            f"{method} /api/v1{re.sub('{[a-z]+:', '{', path)}"
            for path, view in rest_prompts.router.path_operations.items()
            for operation in view.operations
            for method in operation.methods
        ]
        assert sorted(name for name in written if "/api/" in name) == sorted(known)


def _sources() -> list[Path]:
    return [
        path
        for package in _PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations" not in path.parts
    ]


def _read_in_conf(key: str) -> bool:
    code = (ROOT / "kernel/conf.py").read_text()
    return f"parsed.llm.{key.lower()}" in code


def _variables() -> dict[str, str]:
    """Each variable that the settings read, with its default."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse((ROOT / "django_chain/settings.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_env", "_env_list", "os.environ.setdefault"):
            match [part.value for part in node.args if isinstance(part, ast.Constant)]:
                case [str(name), *default]:
                    found[name] = found.get(name) or str(default[0] if default else "")
    return found


def _compose() -> str:
    return (ROOT / "compose.yaml").read_text()


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else json.dumps(value)


class TestCaching:
    def test_the_options_and_their_defaults_are_those_of_the_code(self) -> None:
        options, _ = (DOCS / "caching.md").read_text().split("| kind |", 1)
        written = {row[0].strip("`"): row[2].strip("`") for row in rows(options)}
        assert written == {name: str(field.default) for name, field in CacheOptions.model_fields.items()}

    def test_the_kinds_are_those_that_are_registered(self) -> None:
        text = "| kind |" + (DOCS / "caching.md").read_text().split("| kind |", 1)[1]
        assert first_column(text.split("\n\n", 1)[0]) == registry.answer_caches.names()

    def test_the_caches_are_those_of_the_code(self) -> None:
        made = {
            name
            for package in _PACKAGES
            for file in (ROOT / package).rglob("*.py")
            for name in re.findall(r"(?:Cache|Tally)\(\"(\w+)\"", file.read_text())
        }
        written = [row[0] for row in rows(section("caching.md", "Caches of each process"))]
        assert set(re.findall(r"`(\w+)`", " ".join(written))) == made


class TestTerminal:
    def test_the_subcommands_are_those_of_the_command(self) -> None:
        parser = load_command_class("llm", "llm").create_parser("manage.py", "llm")
        (kinds,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        written = first_column(section("terminal.md", "Models, prices and figures"))
        assert sorted(written) == sorted(kinds.choices)
