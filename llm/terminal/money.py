"""`manage.py llm prices`: what tokens cost, and which models nobody knows the price of."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from llm import prices
from llm.models import ModelPrice
from llm.terminal.paper import Paper

_COLUMNS = ("provider", "model", "input", "output", "cached_input", "valid_from")


def show_prices(paper: Paper, options: dict[str, Any]) -> None:
    if options["set"] is not None:
        _set(paper, options)
    elif any(options[name] is not None for name in ("input", "output", "cached", "from")):
        raise CommandError("--input, --output, --cached and --from belong to --set PROVIDER/MODEL.")
    elif options["what"] == "check":
        _check(paper)
    else:
        rows = [_row(price) for price in ModelPrice.objects.order_by("provider", "model_name", "-valid_from")]
        paper.rows(rows, _COLUMNS, nothing="There is no price: what answers cost is not known.")


def _row(price: ModelPrice) -> dict[str, Any]:
    return {
        "provider": price.provider or "any",
        "model": price.model_name,
        "input": price.input_price,
        "output": price.output_price,
        "cached_input": price.input_price if price.cached_input_price is None else price.cached_input_price,
        "valid_from": price.valid_from,
    }


def _set(paper: Paper, options: dict[str, Any]) -> None:
    provider, slash, model = options["set"].partition("/")
    if not slash:
        raise CommandError("--set takes PROVIDER/MODEL; /MODEL is a price with every provider.")
    if options["input"] is None or options["output"] is None:
        raise CommandError("A price needs --input and --output, for a million tokens.")
    price = prices.set_price(
        provider,
        model,
        input=_amount(options["input"]),
        output=_amount(options["output"]),
        cached_input=None if options["cached"] is None else _amount(options["cached"]),
        valid_from=None if options["from"] is None else _moment(options["from"]),
    )
    paper.done(f"{options['set']} has a price from {price.valid_from:%Y-%m-%d %H:%M} on.", **_row(price))


def _check(paper: Paper) -> None:
    found = [{"provider": one.provider, "model": one.model, "used_in": one.where} for one in prices.unpriced()]
    paper.rows(found, ("provider", "model", "used_in"), nothing="Every model in use has a price.")
    if found:
        raise CommandError(f"{len(found)} have no price: set one with --set PROVIDER/MODEL --input … --output ….")


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise CommandError(f"{text!r} is no amount of money.") from None


def _moment(text: str) -> datetime:
    """A day or a moment; without a zone it is the server's."""
    try:
        day = parse_date(text)
        found = parse_datetime(text) if day is None else datetime(day.year, day.month, day.day)  # noqa: DTZ001  below
    except ValueError:
        found = None
    if found is None:
        raise CommandError(f"{text!r} is no day or time like 2026-01-31 or 2026-01-31T12:00Z.")
    return found if timezone.is_aware(found) else timezone.make_aware(found)
