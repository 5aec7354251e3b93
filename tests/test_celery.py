"""The Celery application and its periodic job."""

import subprocess
import sys
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from accounts.tasks import forget_expired_sign_ins
from django_chain import celery_app
from django_chain.celery import celery_url


def test_every_scheduled_job_exists() -> None:
    celery_app.loader.import_default_modules()
    assert {entry["task"] for entry in celery_app.conf.beat_schedule.values()} <= set(celery_app.tasks)


def test_a_unix_socket_is_written_as_celery_wants_it() -> None:
    assert celery_url("unix:///run/valkey.sock?db=0") == "redis+socket:///run/valkey.sock?virtual_host=0"
    assert celery_url("redis://cache.example:6379/0") == "redis://cache.example:6379/0"


def test_a_server_that_queues_nothing_does_not_load_celery() -> None:
    code = "import sys, django_chain; sys.exit('celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.django_db
def test_expired_sign_ins_are_forgotten_and_others_kept() -> None:
    now = timezone.now()
    Session.objects.all().delete()  # those of tests through live servers share this database
    for key, age in (("expired", -1), ("valid", 1)):
        Session.objects.create(session_key=key, session_data="", expire_date=now + timedelta(days=age))
    forget_expired_sign_ins()
    assert [session.session_key for session in Session.objects.all()] == ["valid"]
