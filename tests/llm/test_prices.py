"""Prices: when they begin, which one holds, and sums that lose nothing."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from kernel.errors import Conflict, Invalid
from llm import budgets, configuration, generation, ledger, prices
from llm.configuration import Configuration, Price
from llm.journal import Call
from llm.models import InteractionLog
from llm.usage import Usage
from tests.conftest import Person

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.fixture
def model(live_database: None) -> str:
    return f"model-{uuid4().hex[:10]}"


def holding(person: Person) -> Configuration:
    workspace_id = person.user.personal_workspace.id
    return configuration.at(workspace_id, generation.of(workspace_id))


def test_a_price_holds_from_its_moment_until_the_next_ones(person: Person, model: str) -> None:
    for day, value in enumerate(("1", "2")):
        prices.set_price(
            "openai", model, input=Decimal(value), output=Decimal(1), valid_from=MOMENT + timedelta(days=day)
        )
    known = holding(person)

    def at(moment: datetime) -> Decimal | None:
        found = known.price_of("openai", model, at=moment)
        return None if found is None else found.input

    assert at(MOMENT - TICK) is None
    assert at(MOMENT) == 1
    assert at(MOMENT + timedelta(days=1) - TICK) == 1
    assert at(MOMENT + timedelta(days=1)) == 2


def test_a_providers_own_price_stands_before_one_for_all(person: Person, model: str) -> None:
    prices.set_price("openai", model, input=Decimal(1), output=Decimal(1), valid_from=MOMENT)
    prices.set_price("", model, input=Decimal(9), output=Decimal(9), valid_from=MOMENT + timedelta(days=1))
    known = holding(person)
    own, other = known.price_of("openai", model), known.price_of("google", model)
    assert own is not None
    assert other is not None
    assert (own.input, other.input) == (1, 9)


def test_a_new_price_is_seen_by_the_next_run(person: Person, model: str) -> None:
    assert holding(person).price_of("openai", model) is None
    prices.set_price("openai", model, input=Decimal(1), output=Decimal(1))
    assert holding(person).price_of("openai", model) is not None


def test_a_price_is_not_changed_afterwards(model: str) -> None:
    prices.set_price("openai", model, input=Decimal(1), output=Decimal(1), valid_from=MOMENT)
    with pytest.raises(Conflict, match="begins at that moment already"):
        prices.set_price("openai", model, input=Decimal(2), output=Decimal(1), valid_from=MOMENT)


@pytest.mark.parametrize("value", ["-1", "NaN", "Infinity", "0.0000001", "100001"])
def test_what_is_no_price_is_refused(model: str, value: str) -> None:
    with pytest.raises(Invalid, match="output: a price lies between 0 and"):
        prices.set_price("openai", model, input=Decimal(1), output=Decimal(value))


def test_a_moment_without_a_time_zone_is_refused(model: str) -> None:
    with pytest.raises(Invalid, match="time zone"):
        prices.set_price("openai", model, input=Decimal(1), output=Decimal(1), valid_from=datetime(2026, 1, 1))  # noqa: DTZ001


def test_models_in_use_without_a_price_are_named(person: Person, model: str, settings: Settings) -> None:
    settings.DJANGO_CHAIN = {"LLM": {"MODELS": {"default": {"PROVIDER": "openai", "MODEL": model}}}}
    other = f"{model}-called"
    InteractionLog.objects.create(
        workspace_id=person.user.personal_workspace.id, run_id=uuid4(), provider="google", model_name=other, status="ok"
    )
    found = [(one.provider, one.model, one.where) for one in prices.unpriced() if model in one.model]
    assert found == [("google", other, "log"), ("openai", model, "settings")]
    prices.set_price("", model, input=Decimal(1), output=Decimal(1))
    prices.set_price("google", other, input=Decimal(1), output=Decimal(1), valid_from=datetime.now(UTC) + TICK * 10**9)
    assert [one.model for one in prices.unpriced() if model in one.model] == [other]


amounts = st.decimals(min_value=0, max_value=100_000, places=6, allow_nan=False, allow_infinity=False)
tokens = st.integers(min_value=0, max_value=10**7)


def price(asked: Decimal, said: Decimal, cached: Decimal) -> Price:
    return Price(provider="p", model="m", input=asked, output=said, cached_input=cached, valid_from=MOMENT)


class TestArithmetic:
    @given(amounts, amounts, amounts, tokens, tokens, tokens)
    def test_a_cost_is_exact_to_a_billionth(
        self, asked: Decimal, said: Decimal, cached: Decimal, fresh: int, again: int, out: int
    ) -> None:
        cost = ledger.cost_of(Usage(fresh + again, out, estimated=False), again, price(asked, said, cached))
        assert cost is not None
        # In whole millionths of a millionth: integers can't round.
        exact = sum(int(each.scaleb(6)) * count for each, count in ((asked, fresh), (cached, again), (said, out)))
        assert -cost.as_tuple().exponent == 9  # type: ignore[operator]
        if exact < 999_999_999 * 10**12:
            assert abs(int(cost.scaleb(9)) * 1000 - exact) <= 500

    @given(amounts, amounts, tokens, tokens)
    def test_cached_tokens_cost_their_own_price(self, asked: Decimal, cached: Decimal, count: int, out: int) -> None:
        usage = Usage(count, out, estimated=False)
        known = price(asked, Decimal(1), cached)
        none, every = ledger.cost_of(usage, 0, known), ledger.cost_of(usage, count, known)
        assert none is not None
        assert every is not None
        assert (every <= none) == (cached <= asked) or every == none

    @given(amounts, amounts, amounts, st.text(max_size=50), st.integers(1, 10_000), st.data())
    def test_what_is_held_back_is_never_less_than_what_a_call_costs(
        self, asked: Decimal, said: Decimal, cached: Decimal, text: str, most: int, data: st.DataObject
    ) -> None:
        known = price(asked, said, cached)
        call = Call(
            number=0,
            alias="a",
            provider="p",
            model="m",
            parameters={},
            messages=[{"role": "user", "content": text}],
            price=known,
            max_output_tokens=most,
        )
        most_in, most_out = budgets.most_tokens(call)
        used_in = data.draw(st.integers(0, most_in))
        cost = ledger.cost_of(
            Usage(used_in, data.draw(st.integers(0, most_out)), estimated=False),
            data.draw(st.integers(0, used_in)),
            known,
        )
        assert cost is not None
        assert budgets.most_money(known, most_in, most_out) >= cost

    def test_without_a_price_the_cost_is_unknown_and_not_nothing(self) -> None:
        assert ledger.cost_of(Usage(10, 10, estimated=False), 0, None) is None

    def test_a_providers_nonsense_fits_its_column(self) -> None:
        cost = ledger.cost_of(
            Usage(10**15, -5, estimated=False), 10**18, price(Decimal(10**5), Decimal(1), Decimal(10**5))
        )
        assert cost == Decimal(2**31 - 1) * 10**5 / 10**6
