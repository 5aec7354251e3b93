"""The demo's sample workflow is one that can be saved and run."""

import json

import pytest
from django.contrib.auth import get_user_model

from django_chain.embedded.demo import WORKFLOW
from django_chain.management.commands import prepare_demo
from llm.models import Prompt, Workflow
from llm.prompts import parse_stored
from llm.workflows import compile_workflow
from tests.conftest import make_person


def test_it_is_valid() -> None:
    sample = json.loads(WORKFLOW.read_text())
    kinds = {step.type for step in compile_workflow(sample["workflow"]).steps}
    assert {"retrieve", "branch", "prompt", "llm"} <= kinds
    parse_stored(sample["prompt"])


@pytest.mark.usefixtures("live_database")
def test_it_is_made_once_and_what_people_made_of_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    person = make_person()
    monkeypatch.setattr(prepare_demo, "USERNAME", person.user.username)
    prepare_demo._make_workflow()
    workspace = get_user_model().objects.get(pk=person.user.pk).personal_workspace
    Prompt.create_new_version(
        "desk", workspace=workspace, prompt_template={"langchain_type": "PromptTemplate", "template": "{question}"}
    )
    prepare_demo._make_workflow()
    assert Workflow.objects.filter(workspace=workspace, name="desk").count() == 1
    assert Prompt.objects.get(workspace=workspace, name="desk", is_active=True).version == 2
