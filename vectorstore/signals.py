"""Who leaves a workspace leaves its restricted collections: asked back, they see those that somebody lets them into."""

from typing import Any

from django.db.models.signals import post_delete
from django.dispatch import receiver

from accounts.models import Membership
from vectorstore.models import CollectionMember


@receiver(post_delete, sender=Membership, dispatch_uid="vectorstore.leave_collections")
def leave_collections(sender: type, instance: Membership, **kwargs: Any) -> None:
    theirs = CollectionMember.objects.filter(user_id=instance.user_id)
    theirs.filter(collection__workspace_id=instance.workspace_id).delete()
