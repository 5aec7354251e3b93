"""Collections: who may do what with them, their members, what they hold. Units of work for Scope, on somebody's behalf.

A reader of the workspace reads its open collections; a restricted one is read by its own members and the admins. A
writer writes what they read, in a restricted collection only with `can_write`. Admins may do all.
"""

import re
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Q, Sum
from django.db.models.functions import Now

from accounts.models import ADMINS, WRITERS, Membership
from kernel.conf import config as settings
from kernel.errors import Busy, Conflict, Forbidden, Invalid, NotFound
from kernel.text import storable
from vectorstore import rows
from vectorstore.models import Access, Collection, CollectionMember, DocumentState, Garbage, VectorSet
from vectorstore.scope import Scope
from vectorstore.values import Space

#: Stands for the default collection's id.
DEFAULT: Final = "default"
#: Documents that go in one transaction, and the chunks after which no other document joins them.
_BATCH_DOCUMENTS = 50
_BATCH_CHUNKS = 2000
_NAME_OF_DELETED = re.compile(r"deleted [0-9a-f-]{36}")


def readable(scope: Scope, ref: UUID | str) -> Any:
    """The collection of that id, or the default one. Raises NotFound."""
    wanted = Q(name=settings().vector_store.default_collection) if ref == DEFAULT else Q(pk=ref)
    row = scope.collections.filter(wanted).first()
    if row is None:
        raise NotFound("There is no such collection among yours.")
    return row


def writable(scope: Scope, ref: UUID | str) -> Any:
    """As `readable`; raises Forbidden for one that the reader may not add to."""
    row = readable(scope, ref)
    check_writer(scope, row)
    return row


def check_writer(scope: Scope, row: Any) -> None:
    """Raises Forbidden unless the reader may change what the collection holds."""
    role = _role(scope)
    if role in ADMINS:
        return
    if role not in WRITERS:
        raise Forbidden("You can't write in that workspace.")
    if row.access == Access.RESTRICTED and not row.members.filter(user_id=_person(scope), can_write=True).exists():
        raise Forbidden("You can read this collection, but not change it; its workspace's admins can let you.")


def check_member(scope: Scope) -> None:
    """Raises Forbidden unless the reader may add to the workspace."""
    if _role(scope) not in WRITERS:
        raise Forbidden("You can't write in that workspace.")


def administered(scope: Scope, ref: UUID | str, *, lock: bool = False) -> Any:
    """As `readable`; raises Forbidden for who isn't an admin of the workspace."""
    row = readable(scope, ref)
    if _role(scope) not in ADMINS:
        raise Forbidden("You can't configure that workspace.")
    if lock:
        # Not `get`: somebody may have deleted it while this waited.
        row = Collection.objects.select_for_update().filter(pk=row.pk).first()
    if row is None:
        raise NotFound("There is no such collection among yours.")
    return row


def create(scope: Scope, name: str, space: Space, *, description: str, language: str, access: Access) -> Any:
    """A new collection. Who makes a restricted one is its first member. Raises Conflict, Invalid, Forbidden."""
    check_member(scope)
    name = name_of(name)
    _check_language(language)
    try:
        with transaction.atomic():
            row = Collection.objects.create(
                workspace_id=scope.workspace_id,
                name=name,
                description=storable(description),
                language=language,
                access=access,
            )
    except IntegrityError as error:
        raise Conflict("There is a collection of that name already; choose another.") from error
    VectorSet.objects.create(
        workspace_id=scope.workspace_id,
        collection=row,
        backend=settings().vector_store.backend,
        embedding_model=space.model,
        dimension=space.dimension,
    )
    if access == Access.RESTRICTED:
        CollectionMember.objects.create(collection=row, user_id=_person(scope), can_write=True)
    return row


def change(scope: Scope, ref: UUID | str, values: dict[str, Any]) -> Any:
    """Set `name`, `description` or `access`. Raises Conflict for a name that is taken."""
    row = administered(scope, ref, lock=True)
    for field, value in values.items():
        setattr(row, field, name_of(value) if field == "name" else storable(value))
    try:
        with transaction.atomic():
            row.save(update_fields=[*values, "updated_at"])
    except IntegrityError as error:
        raise Conflict("There is a collection of that name already; choose another.") from error
    return row


def begin_delete(scope: Scope, ref: UUID | str) -> UUID:
    """Take the collection's name and its members away; nobody but admins finds it from then on."""
    row = administered(scope, ref, lock=True)
    row.name, row.access = _name_of_deleted(row), Access.RESTRICTED
    row.save(update_fields=["name", "access", "updated_at"])
    row.members.all().delete()
    return row.pk  # type: ignore[no-any-return]  # rows of a scope are untyped


def is_being_deleted(row: Any) -> bool:
    return bool(row.name == _name_of_deleted(row))


def delete_some(scope: Scope, collection_id: UUID) -> bool:
    """Delete a bounded part of what `begin_delete` has hidden; whether all is gone, the collection with it."""
    # Locked: an upload that is under way waits, and then finds no collection to belong to.
    row = scope.collections.filter(pk=collection_id).select_for_update(of=("self",)).first()
    if row is None:
        return True
    batch: list[UUID] = []
    chunks = 0
    for document_id, count in row.documents.order_by("id").values_list("id", "chunk_count")[:_BATCH_DOCUMENTS]:
        if batch and chunks + count > _BATCH_CHUNKS:
            break
        batch.append(document_id)
        chunks += count
    if batch:
        rows.delete_documents(scope, batch)
        return False
    outside = row.vector_sets.exclude(backend=rows.BESIDE)
    Garbage.objects.bulk_create(
        Garbage(backend=each.backend, set_id=each.id, lease_expires_at=Now()) for each in outside
    )
    row.delete()
    return True


def counts(collection_id: UUID) -> dict[str, int]:
    """How many documents there are in each state; all states are named."""
    found = Collection.objects.filter(pk=collection_id).values_list("documents__state").annotate(Count("documents"))
    return dict.fromkeys(DocumentState.values, 0) | {state: number for state, number in found if state}


def stats(scope: Scope, ref: UUID | str) -> dict[str, Any]:
    """What a collection holds, and its sets of vectors."""
    row = readable(scope, ref)
    sums = row.documents.aggregate(chunks=Sum("chunk_count", default=0), bytes=Sum("size", default=0))
    sets = row.vector_sets.order_by("id").values(
        "id", "backend", "embedding_model", "dimension", "state", "index", "index_rows", "reason"
    )
    return {"documents": counts(row.pk), **sums, "vector_sets": list(sets)}


def members(scope: Scope, ref: UUID | str) -> Any:
    """The people of a restricted collection, for admins."""
    return administered(scope, ref).members.select_related("user")


def put_member(scope: Scope, ref: UUID | str, user_id: int, *, can_write: bool) -> Any:
    """Let a member of the workspace read the collection, or also write it. Raises NotFound, Busy at 1000 members."""
    row = administered(scope, ref, lock=True)
    check_admissible(row, user_id)
    member, _ = row.members.update_or_create(user_id=user_id, defaults={"can_write": can_write})
    return row.members.select_related("user").get(pk=member.pk)


def check_admissible(row: Any, user_id: int) -> None:
    """Raises NotFound for who isn't a member of the collection's workspace, Busy at 1000 members."""
    if not Membership.objects.filter(workspace_id=row.workspace_id, user_id=user_id).exists():
        raise NotFound("There is no such member of the workspace.")
    if not row.members.filter(user_id=user_id).exists() and row.members.count() >= 1000:
        raise Busy("A collection has 1000 members at most.")


def drop_member(scope: Scope, ref: UUID | str, user_id: int) -> None:
    """Raises NotFound if they are none."""
    if not administered(scope, ref, lock=True).members.filter(user_id=user_id).delete()[0]:
        raise NotFound("There is no such member of the collection.")


def name_of(name: str) -> str:
    """A name as collections have it. Raises Invalid."""
    name = storable(name).strip()
    if not name:
        raise Invalid("A collection's name has 1 to 200 characters.")
    if _NAME_OF_DELETED.fullmatch(name):
        raise Invalid("A collection that is being deleted is called so; choose another name.")
    return name


def _role(scope: Scope) -> str | None:
    found = Membership.objects.filter(workspace_id=scope.workspace_id, user_id=_person(scope))
    return found.values_list("role", flat=True).first()


def _person(scope: Scope) -> int:
    if not isinstance(scope.reader, int):
        raise Forbidden("These are things that a person does.")
    return scope.reader


def _name_of_deleted(row: Any) -> str:
    return f"deleted {row.pk}"


def _check_language(language: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT cfgname FROM pg_ts_config WHERE cfgname = %s AND pg_ts_config_is_visible(oid)", [language]
        )
        if cursor.fetchone() is None:
            raise Invalid(
                "PostgreSQL has no text search configuration of that language; english, german and simple are."
            )
