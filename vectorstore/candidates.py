"""Parts of a search's one statement: which chunks are near, and which hold the words. Each is SQL with its values.

They read tables that have no row security, for the sake of their indexes; what they find is joined to the chunks
before anybody sees it (vectorstore.searching).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from pgvector import Vector

from vectorstore.filters import Filter, Sql
from vectorstore.values import Scored, SetInfo

#: Matches whose words are weighed, and of each kind of words where it is known which ones are rare: what a common word
#: finds beyond these is not looked at.
MOST_MATCHES: Final = 500
MOST_RARE_MATCHES: Final = 200
#: Characters of a question, and words of it, that the text part reads.
MOST_CHARACTERS: Final = 2000
_MOST_WORDS: Final = 32
#: A word, or words in quotation marks, that must not occur.
_NEGATED = re.compile(r'(?<!\S)-(?:"[^"]*"?|\S+)')


class Common(NamedTuple):
    """The most common words (lexemes) of all passages, and the share of them that each is in: arrays, as PostgreSQL
    writes them. `passages`: how many there are where the words are looked for.
    """

    words: str = "{}"
    shares: str = "{}"
    passages: int = 0

    @property
    def most_matches(self) -> int:
        return MOST_RARE_MATCHES if self.passages else MOST_MATCHES


NOT_COMMON: Final = Common()


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """Which chunks are wanted: those that a filter lets through, and of these documents (empty: of all)."""

    where: Filter | None = None
    documents: Sequence[UUID] = ()

    def __bool__(self) -> bool:
        return self.where is not None or bool(self.documents)

    def joined(self, chunk_id: str) -> Sql:
        """`JOIN`s to the lookup of `chunk_id`, with the conditions; nothing if everything is wanted."""
        if not self:
            return "", []
        conditions, values = self.conditions()
        return f"JOIN vectorstore_chunklookup l ON l.chunk_id = {chunk_id} {self.document()} AND {conditions}", values

    def document(self) -> str:
        """A `JOIN` of the lookup to its document, where the filter asks for one of its columns."""
        asked = self.where is not None and re.search(r"\bd\.(?:source|title)\b", self.where.sql()[0])
        # The collection, for the index of documents by their sources.
        joined = "JOIN vectorstore_document d ON d.id = l.document_id AND d.collection_id = l.collection_id"
        return joined if asked else ""

    def conditions(self) -> Sql:
        found, values = self.where.sql() if self.where is not None else ("true", [])
        if self.documents:
            found, values = f"{found} AND l.document_id = ANY(%s::uuid[])", [*values, list(self.documents)]
        return found, values


def nearest(vectors: SetInfo, vector: Sequence[float], *, limit: int, narrowing: Narrowing) -> Sql:
    """`chunk_id` and cosine `distance` of the nearest of a set in PostgreSQL, nearest first."""
    joins, values = narrowing.joined("v.chunk_id")
    text = f"""
        SELECT v.chunk_id, {distance(vectors)} AS distance
        FROM vectorstore_chunkvector v {joins}
        WHERE v.vector_set_id = %s
            AND EXISTS (SELECT FROM vectorstore_vectorset s WHERE s.id = %s AND s.workspace_id = %s)
        ORDER BY distance LIMIT %s"""  # noqa: S608  made of our own parts
    return text, [Vector(list(vector)), *values, vectors.id, vectors.id, vectors.workspace_id, limit]


def distance(vectors: SetInfo) -> str:
    """The cosine distance of `v.embedding` to a vector that is given."""
    return "v.embedding <=> %s::vector"


def given(scored: Sequence[Scored], *, limit: int, narrowing: Narrowing) -> Sql:
    """The same of what a backend outside PostgreSQL found."""
    joins, values = narrowing.joined("g.chunk_id")
    text = f"""
        SELECT g.chunk_id, 1 - g.score AS distance
        FROM unnest(%s::uuid[], %s::float8[]) AS g(chunk_id, score) {joins}
        ORDER BY distance LIMIT %s"""  # noqa: S608  made of our own parts
    return text, [[each.chunk_id for each in scored], [each.score for each in scored], *values, limit]


def none_near() -> Sql:
    """The same where only words are asked for."""
    return "SELECT NULL::uuid AS chunk_id, NULL::float8 AS distance WHERE false", []


def asked(language: str, question: str, common: Common = NOT_COMMON) -> Sql:
    """A row with the question as queries: `every_word`, as websearch_to_tsquery reads it; `any_word`; `rare_word` of
    those words that match the fewest, together no more than are weighed; `next_word`, the least common of the others.

    Words that are not among the `common` ones count as rare.
    """
    question, most = question[:MOST_CHARACTERS], common.most_matches
    negated = " ".join(_NEGATED.findall(question))
    kinds = ("any_word", "rare_word", "next_word")
    queries = ", ".join(f"coalesce({kind}::tsquery && negated, '') AS {kind}" for kind in kinds)
    text = f"""
        SELECT every_word, {queries}
        FROM (
            SELECT websearch_to_tsquery(%s::regconfig, %s) AS every_word,
                websearch_to_tsquery(%s::regconfig, %s) AS negated
        ) AS whole, (
            SELECT string_agg(word, ' | ') AS any_word,
                string_agg(word, ' | ') FILTER (WHERE together <= {most}) AS rare_word,
                string_agg(word, ' | ') FILTER (
                    WHERE together > {most} AND together - matches <= {most}
                ) AS next_word
            FROM (
                SELECT '''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''' AS word,
                    matches, sum(matches) OVER (ORDER BY matches, lexeme) AS together
                FROM (
                    SELECT few.lexeme, coalesce(c.share * %s, 0) AS matches
                    FROM (SELECT lexeme FROM unnest(to_tsvector(%s::regconfig, %s)) LIMIT {_MOST_WORDS}) AS few
                    LEFT JOIN unnest(%s::text[], %s::float8[]) AS c (lexeme, share) ON c.lexeme = few.lexeme
                ) AS weighed
            ) AS ordered
        ) AS found"""  # noqa: S608  made of our own parts
    of_words = [common.passages, language, _NEGATED.sub(" ", question), common.words, common.shares]
    return text, [language, question, language, negated, *of_words]


def matching(collection_id: UUID, *, limit: int, enough: int, most: int, narrowing: Narrowing) -> Sql:
    """More parts, after one that is called `asked`; the last is `words` with `chunk_id`, `rank` (0 to 1) and whether it
    has `every` word. Chunks that have only some are looked for when none has all: those with rare words first, and
    others if these are not `enough`; `most` of each.
    """
    conditions, values = narrowing.conditions()
    found = f"""
        SELECT l.chunk_id, l.terms FROM vectorstore_chunklookup l {narrowing.document()}
        WHERE l.terms @@ (SELECT :query FROM asked) AND l.collection_id = %s AND {conditions}"""  # noqa: S608  made of our own parts
    every = "ts_rank_cd(terms, (SELECT every_word FROM asked), 32)::float8 AS rank"
    # By how many of the words it has, wherever they stand: a title's words would outweigh all others.
    some = "ts_rank('{1, 1, 1, 1}', terms, (SELECT any_word FROM asked), 32)::float8 AS rank"
    text = f"""
        strict AS MATERIALIZED ({found.replace(":query", "every_word")} LIMIT {most}),
        rare AS MATERIALIZED (
            {found.replace(":query", "rare_word")} AND NOT EXISTS (SELECT FROM strict) LIMIT {most}
        ),
        others AS MATERIALIZED (
            {found.replace(":query", "next_word")} AND NOT l.terms @@ (SELECT rare_word FROM asked)
                AND NOT EXISTS (SELECT FROM strict) AND (SELECT count(*) FROM rare) < %s LIMIT {most}
        ),
        words AS MATERIALIZED (
            SELECT chunk_id, {every}, true AS every FROM strict
            UNION ALL
            SELECT chunk_id, {some}, false FROM (SELECT * FROM rare UNION ALL SELECT * FROM others) AS loose
            ORDER BY rank DESC, chunk_id LIMIT %s
        )"""  # noqa: S608  made of our own parts
    where = [collection_id, *values]
    return text, [*where, *where, *where, enough, limit]
