"""What accounts does on a schedule."""

from celery import shared_task
from django.core.management import call_command


@shared_task
def forget_expired_sign_ins() -> None:
    """Delete the sessions of sign-ins that have expired; Django itself never does."""
    call_command("clearsessions")
