"""How common words are, as PostgreSQL's statistics know it: of all passages, whosever they are."""

from threading import Lock

from cachetools import TTLCache, cached
from django.db import connection

from vectorstore.candidates import NOT_COMMON, Common
from vectorstore.models import IndexState
from vectorstore.values import SetInfo

#: As many as make a difference: what is not among them is in less than one of a hundred passages.
_MOST = 500
#: Seconds: statistics follow a table that grows by a tenth.
_KEPT = 600


def common(searched: SetInfo) -> Common:
    """Those that are worth to be told from rare ones: none where all that have a word can be looked at (one query in
    ten minutes).
    """
    if searched.index != IndexState.READY:
        return NOT_COMMON
    words, shares = _known()
    return Common(words, shares, searched.index_rows)


@cached(TTLCache(1, _KEPT), lock=Lock())
def _known() -> tuple[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(_STATISTICS, [_MOST])
        words, shares = cursor.fetchone()
    return words, shares


# Behind the shares stand three numbers more, of all of them.
_STATISTICS = """
    SELECT coalesce(array_agg(word), '{}')::text, coalesce(array_agg(share), '{}')::text
    FROM (
        SELECT e.word, e.share
        FROM pg_stats s, unnest(s.most_common_elems::text::text[], s.most_common_elem_freqs) AS e (word, share)
        WHERE s.attname = 'terms' AND e.word IS NOT NULL AND (s.schemaname, s.tablename) = (
            SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = 'vectorstore_chunklookup'::regclass
        )
        ORDER BY e.share DESC LIMIT %s
    ) AS most
"""
