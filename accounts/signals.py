"""A personal workspace for each new user."""

from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

from accounts.models import Membership, Role, Workspace


@receiver(post_save, sender=settings.AUTH_USER_MODEL, dispatch_uid="accounts.personal_workspace")
def give_personal_workspace(sender: type, instance: Any, created: bool, raw: bool = False, **kwargs: Any) -> None:
    if not created or raw:
        return
    with transaction.atomic():
        workspace = Workspace.objects.create(name=f"{instance.get_username()}'s workspace"[:200], personal_of=instance)
        Membership.objects.create(workspace=workspace, user=instance, role=Role.OWNER)
