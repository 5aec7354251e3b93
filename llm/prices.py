"""What tokens cost: a price begins at a moment and is never changed afterwards, so what was spent can be retraced.

Prices are the operator's, in one currency, for all workspaces. Every row of the log keeps the price that it was
counted with.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import IntegrityError, transaction
from django.utils import timezone

from kernel.conf import config
from kernel.errors import Conflict, Invalid
from llm.models import InteractionLog, ModelConfig, ModelPrice

#: For a million tokens; beyond it the cost of a call might not fit its column.
_MOST = Decimal(100_000)
_PLACES = 6


@dataclass(frozen=True, kw_only=True, order=True)
class Unpriced:
    """A model that is used, or may be, without a price."""

    provider: str
    model: str
    #: `settings`, `database`, or `log`: it was called lately, and cost nobody knows what.
    where: str


def set_price(
    provider: str,
    model: str,
    *,
    input: Decimal,  # noqa: A002  what everybody calls it
    output: Decimal,
    cached_input: Decimal | None = None,
    valid_from: datetime | None = None,
) -> ModelPrice:
    """Let a price begin, for a million tokens; it holds until the next one of the same model begins.

    `provider` empty: for the model wherever it runs, unless there is a price with its provider. `cached_input` None:
    as `input`. `valid_from` None: now. Raises Invalid, and Conflict if a price begins at this very moment.
    """
    if not model:
        raise Invalid("A price needs the name of a model, as the provider calls it.")
    if valid_from is not None and valid_from.tzinfo is None:
        raise Invalid("`valid_from` needs a time zone: the price would begin at another hour elsewhere.")
    for name, value in (("input", input), ("output", output), ("cached_input", cached_input)):
        check_amount(name, value)
    price = ModelPrice(
        provider=provider,
        model_name=model,
        input_price=input,
        output_price=output,
        cached_input_price=cached_input,
        valid_from=valid_from or timezone.now(),
    )
    try:
        with transaction.atomic():
            price.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict(f"A price of {model!r} begins at that moment already; let this one begin at another.") from error
    return price


def unpriced(*, days: int = 30) -> list[Unpriced]:
    """Models of the settings and the database, and those called in the last days, that have no price now."""
    now = timezone.now()
    used = {Unpriced(provider=one.provider, model=one.model, where="settings") for one in config().llm.models.values()}
    stored = ModelConfig.objects.filter(is_active=True, route=None).exclude(model_name="")
    used |= {
        Unpriced(provider=provider, model=model, where="database")
        for provider, model in stored.values_list("provider", "model_name")
    }
    called = InteractionLog.objects.filter(created_at__gte=now - timedelta(days=days), cost=None).exclude(model_name="")
    used |= {
        Unpriced(provider=provider, model=model, where="log")
        for provider, model in called.values_list("provider", "model_name").distinct()
    }
    known = set(ModelPrice.objects.filter(valid_from__lte=now).values_list("provider", "model_name"))
    return sorted(one for one in used if not known & {(one.provider, one.model), ("", one.model)})


def check_amount(name: str, value: Decimal | None) -> None:
    """Raises Invalid for what no price can be."""
    if value is None:
        return
    exponent = value.as_tuple().exponent
    if not value.is_finite() or not 0 <= value <= _MOST or not isinstance(exponent, int) or -exponent > _PLACES:
        raise Invalid(f"{name}: a price lies between 0 and {_MOST}, with at most {_PLACES} decimal places.")
