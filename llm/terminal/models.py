"""`manage.py llm list`, `set`, `unset` and `rotate-keys`: what aliases mean."""

import json
from typing import Any

from django.core.management.base import CommandError

from llm import effective, model_configs
from llm.configuration import Configuration
from llm.terminal import places
from llm.terminal.paper import Paper

_COLUMNS = ("alias", "from", "provider", "model", "key", "price", "route")


def list_models(paper: Paper, options: dict[str, Any]) -> None:
    holding = places.configuration_of(places.workspace_id(options["workspace"]))
    rows = [_row(alias, holding) for alias in effective.names(holding)]
    paper.rows(rows, _COLUMNS, nothing="There is no model.")


def _row(alias: str, holding: Configuration) -> dict[str, Any]:
    found = effective.find(alias, holding)
    row: dict[str, Any] = dict.fromkeys(_COLUMNS) | {"alias": alias, "from": found.origin}
    if found.route is not None:
        return row | {"route": f"{found.route.strategy}: {', '.join(found.route.models)}"}
    assert found.bounds is not None
    provider, model = found.bounds.provider, found.bounds.model
    priced = holding.price_of(provider, model) is not None
    return row | {"provider": provider, "model": model, "key": found.has_key, "price": priced}


def set_model(paper: Paper, options: dict[str, Any]) -> None:
    workspace = places.workspace_id(options["workspace"])
    route = None
    if options["route"]:
        names, strategy = options["route"].split(","), options["strategy"]
        route = {"models": names, "strategy": strategy}
        if options["weights"]:
            route["weights"] = [_value(one) for one in options["weights"].split(",")]
    elif options["weights"]:
        raise CommandError("--weights belong to a --route.")
    row = model_configs.put(
        workspace,
        options["alias"],
        user_id=None,
        provider=options["provider"],
        model=options["model"],
        options=_pairs(options["option"]),
        base_url=options["base_url"],
        key=places.key(options),
        key_variable=options["key_variable"],
        bounds=_pairs(options["bound"]),
        route=route,
    )
    whose = "all workspaces" if workspace is None else f"workspace {workspace}"
    paper.done(f"{row.alias} is set for {whose}.", alias=row.alias, workspace=workspace)


def unset_model(paper: Paper, options: dict[str, Any]) -> None:
    workspace = places.workspace_id(options["workspace"])
    model_configs.delete(workspace, options["alias"], user_id=None)
    paper.done(f"{options['alias']} means again what is beneath it.", alias=options["alias"], workspace=workspace)


def rotate_keys(paper: Paper, _: dict[str, Any]) -> None:
    count = model_configs.reencrypt()
    paper.done(f"{count} keys are encrypted with the first of the encryption keys.", keys=count)


def _pairs(given: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` each, the values as JSON where they are some."""
    found = {}
    for pair in given:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise CommandError(f"{pair!r} has not the form NAME=VALUE.")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
