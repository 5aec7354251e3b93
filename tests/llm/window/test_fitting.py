"""Prompts and windows: what is kept fits, and is what matters."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from kernel.errors import TooLarge
from llm import window
from llm.errors import ContextExceeded
from llm.tokens import PER_MESSAGE
from llm.window import Draft, fit
from tests.llm.conftest import Configure
from tests.llm.window.conftest import counted, hits, prompted, spoken, words


def first_words(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.text.split()[0] for message in messages]


class TestWhatIsLeftOut:
    def test_a_prompt_that_just_fits_stays_as_it_is(self) -> None:
        draft = prompted(spoken(5))
        limit = counted(draft.messages)
        fitted = fit(draft, counted, limit)
        assert fitted.messages is draft.messages
        assert fitted.whole

    def test_one_token_less_room_costs_the_oldest_turn(self) -> None:
        draft = prompted(spoken(5))
        limit = counted(draft.messages) - 1
        fitted = fit(draft, counted, limit)
        assert first_words(fitted.messages)[1:3] == ["ask1", "tell1"]
        assert (fitted.dropped_messages, fitted.dropped_passages) == (2, 0)
        assert fitted.tokens == counted(fitted.messages) <= limit == fitted.limit

    def test_a_note_of_the_memory_outlives_all_turns(self) -> None:
        note = SystemMessage("summary of what was said")
        draft = prompted([note, *spoken(3)])
        limit = counted(draft.messages) - 3 * 2 * (10 + PER_MESSAGE)
        fitted = fit(draft, counted, limit)
        assert first_words(fitted.messages)[1:] == ["why?"]
        assert fitted.messages[0].text.endswith("\n\nsummary of what was said")
        assert (fitted.dropped_messages, fitted.tokens) == (6, counted(fitted.messages))
        without = fit(draft, counted, limit - 1)
        assert first_words(without.messages)[1:] == ["why?"]
        assert "summary" not in without.messages[0].text
        assert without.dropped_messages == 7

    def test_a_note_in_words_of_the_person_is_told_by_what_it_carries(self) -> None:
        note = HumanMessage("summary of what was said", response_metadata={"summary": 7})
        draft = prompted([note, *spoken(3)])
        fitted = fit(draft, counted, counted(draft.messages) - 1)
        assert [one.split()[0] for one in fitted.messages[1].text.split("\n\n")] == ["summary", "ask1"]

    def test_passages_of_the_lowest_rank_go_after_the_history_and_keep_their_marks(self) -> None:
        draft = prompted(spoken(2), hits(4))
        bare = counted(prompted([], hits(4)).messages)
        assert fit(draft, counted, bare).dropped_passages == 0
        fitted = fit(draft, counted, bare - 1)
        assert [hit["n"] for hit in fitted.passages] == [1, 2, 3]
        assert (fitted.dropped_messages, fitted.dropped_passages) == (4, 1)
        assert "[3]" in fitted.messages[-1].text
        assert "[4]" not in fitted.messages[-1].text

    def test_without_any_passage_the_prompt_for_none_is_used(self) -> None:
        draft = prompted([], hits(2, size=50))
        fitted = fit(draft, counted, 70)
        assert fitted.passages == []
        assert fitted.messages[0].text == "You are a helpful assistant. Answer briefly."

    def test_what_can_not_go_is_refused_with_figures(self) -> None:
        draft = prompted(spoken(2), hits(2), question=words(500))
        with pytest.raises(ContextExceeded, match=r"about 5\d\d tokens.*room for 400.*shorten") as refused:
            fit(draft, counted, 400)
        assert isinstance(refused.value, TooLarge)
        assert (refused.value.code, refused.value.limit) == ("context_exceeded", 400)

    def test_a_plain_list_keeps_instructions_and_question(self) -> None:
        messages = [SystemMessage("rules"), *spoken(4), HumanMessage("why?")]
        fitted = fit(Draft.of(messages), counted, counted(messages) - 1)
        assert first_words(fitted.messages) == ["rules", "ask1", "tell1", "ask2", "tell2", "ask3", "tell3", "why?"]

    def test_a_plain_list_without_a_question_keeps_its_end(self) -> None:
        with pytest.raises(ContextExceeded):
            fit(Draft.of([SystemMessage(words(100))]), counted, 50)
        assert fit(Draft.of([]), counted, 50).messages == []


def exchange(number: int, size: int = 10) -> list[BaseMessage]:
    call = {"id": f"c{number}", "name": "weather", "args": {}}
    return [AIMessage("", tool_calls=[call]), ToolMessage(f"rain{number} {words(size - 1)}", tool_call_id=f"c{number}")]


class TestWithTools:
    def test_the_oldest_exchanges_go_whole_after_the_history_and_before_passages(self) -> None:
        draft = prompted(spoken(2), hits(1)).around(exchanges=[exchange(n) for n in range(3)])
        bare = counted(prompted([], hits(1)).around(exchanges=draft.exchanges).messages)
        fitted = fit(draft, counted, bare - 1)
        assert [one.type for one in fitted.messages] == ["system", "human", "ai", "tool", "ai", "tool"]
        assert fitted.messages[3].text.startswith("rain1")
        assert (fitted.dropped_messages, fitted.dropped_passages) == (6, 0)

    def test_the_last_exchange_stays(self) -> None:
        draft = prompted([]).around(exchanges=[exchange(0), exchange(1, size=500)])
        with pytest.raises(ContextExceeded):
            fit(draft, counted, 300)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    sizes = st.integers(1, 40)
    history: list[BaseMessage] = []
    for order, kind in enumerate(draw(st.lists(st.sampled_from("hhaan"), max_size=14)), start=1):
        text, place = words(draw(sizes)), {"order": order}
        if kind == "n":
            history.append(SystemMessage(f"note {text}"))
        else:
            history.append((HumanMessage if kind == "h" else AIMessage)(text, response_metadata=place))
    return prompted(history, hits(draw(st.integers(0, 6)), draw(st.integers(3, 30))), words(draw(sizes), "why"))


def texts_by_side(messages: list[BaseMessage]) -> list[str]:
    return ["\n\n".join(one.text for one in side) for _, side in groupby(messages, key=lambda one: one.type)]


@given(drafts(), st.integers(20, 900))
def test_whatever_is_kept_fits_and_is_the_newest_of_whole_turns(draft: Draft, limit: int) -> None:
    try:
        fitted = fit(draft, counted, limit)
    except ContextExceeded:
        assert counted(draft.written((), (), ())) > limit
        return
    assert counted(fitted.messages) <= limit
    system, *said = fitted.messages
    question = said[-1]
    assert system.type == "system"
    assert draft.messages[-1].text.split()[-1] in question.text
    assert all(one.type != other.type for one, other in pairwise(said))
    everything = [one for one in draft.history if one.type != "system"]
    asked = draft.written((), (), fitted.passages)[-1].text
    (begin,) = (
        at
        for at in range(len(everything) + 1)
        if [one.text for one in said] == texts_by_side([*everything[at:], HumanMessage(asked)])
    )
    if fitted.dropped_messages and everything[begin:]:
        assert everything[begin].type == "human"
    assert list(fitted.passages) == list(draft.passages)[: len(fitted.passages)]
    if fitted.dropped_passages:
        assert everything[begin:] == []
    for hit in draft.passages:
        assert (f"[{hit['n']}]" in question.text) == (hit in fitted.passages)


class TestTheBudget:
    def test_is_the_window_without_the_answer_and_a_margin(self, configure: Configure) -> None:
        fake = {"PROVIDER": "fake", "MODEL": "fake"}
        configure(
            plain={**fake, "CONTEXT_TOKENS": 10_000},
            bounded={**fake, "CONTEXT_TOKENS": 10_000, "MAX_OUTPUT_TOKENS": 500},
            asking={**fake, "CONTEXT_TOKENS": 10_000, "OPTIONS": {"max_tokens": 300}},
            greedy={**fake, "CONTEXT_TOKENS": 10_000, "MAX_OUTPUT_TOKENS": 50_000},
            unknown=fake,
            ROUTES={"some": {"MODELS": ["bounded", "plain"]}, "any": {"MODELS": ["plain", "unknown"]}},
        )
        assert window.budget_of("plain") == 10_000 - 2500 - 100
        assert window.budget_of("bounded") == 10_000 - 500 - 100
        assert window.budget_of("asking") == 10_000 - 300 - 100
        assert window.budget_of("greedy") == 10_000 - 7500 - 100
        assert window.budget_of("unknown") is None
        assert window.budget_of("any") is None
        assert window.budget_of("some") is not None
