"""Filters: a closed grammar, and one meaning in SQL and in Python."""

import json

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import Invalid
from vectorstore.filters import MAX_CONDITIONS, MAX_DEPTH, Filter, parse

NAMES = st.sampled_from(["a", "b", "a.b", "a.0"])
VALUES = st.one_of(
    st.sampled_from(
        ["x", "xy", "1", "true", "2024-02-29", "2023-02-29", "2024-02-29T01:00+02:00", "2024-01-01 10:00Z"]
    ),
    st.sampled_from([0, 1, 1.0, -0.0, 0.1, 1e23, 10**23, 2**53 + 1, float(2**53), True, False]),
)
BOUNDS = st.dictionaries(st.sampled_from(["gte", "gt", "lte", "lt"]), st.sampled_from([0, 0.1, 1, 1e23]), min_size=1)
MOMENTS = st.dictionaries(
    st.sampled_from(["gte", "gt", "lte", "lt"]), st.sampled_from(["2024-02-28T23:00Z", "2024-02-29"]), min_size=1
)
CONDITIONS = st.one_of(
    st.builds(lambda op, name, value: {op: {name: value}}, st.sampled_from(["eq", "contains"]), NAMES, VALUES),
    st.builds(lambda name, values: {"in": {name: values}}, NAMES, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda name, bounds: {"range": {name: bounds}}, NAMES, BOUNDS | MOMENTS),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(lambda part: {"not": part}, inner),
        st.builds(
            lambda op, parts: {op: parts}, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=5,
)
HELD = st.one_of(VALUES, st.none(), st.lists(VALUES | st.none(), max_size=3))
METADATA = st.dictionaries(
    st.sampled_from(["a", "b"]), HELD | st.dictionaries(st.sampled_from(["b", "0"]), HELD), max_size=2
)


def found_by_sql(wanted: Filter, metadata: dict) -> bool:
    text, values = wanted.sql()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {text} FROM (SELECT %s::jsonb AS metadata) AS l", [*values, json.dumps(metadata)])
        return cursor.fetchone()[0]


@pytest.mark.django_db
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=FILTERS, metadata=METADATA)
def test_a_filter_means_the_same_in_sql_and_in_python(raw, metadata):
    wanted = parse(raw)
    assert found_by_sql(wanted, metadata) is wanted.matches(metadata)


@pytest.mark.parametrize(
    "raw",
    [None, [], {}, {"eq": {}}, {"like": {"a": "x"}}, {"eq": {"a": None}}, {"eq": {"a": float("nan")}}, {"and": []},
     {"in": {"a": []}}, {"range": {"a": {"gte": "soon"}}}, {"range": {"a": {"gte": 1, "lt": "2024-01-01"}}},
     {"eq": {"a..b": 1}}, {"eq": {"document.text": "x"}}, {"eq": {"a": "\x00"}}, {"contains": {"a": ""}},
     {"and": [{"eq": {"a": 1}}] * (MAX_CONDITIONS + 1)}],
)  # fmt: skip
def test_what_the_grammar_does_not_know_is_refused(raw):
    with pytest.raises(Invalid):
        parse(raw)


def test_a_filter_is_only_so_deep():
    raw = {"eq": {"a": 1}}
    for _ in range(MAX_DEPTH):
        raw = {"not": raw}
    with pytest.raises(Invalid, match="levels"):
        parse(raw)
