"""The project as it is served, with a scripted model: BENCH_MODEL and BENCH_WORKFLOW say which, as JSON."""

import json
import os

from django_chain.settings import *  # noqa: F403
from django_chain.settings import DJANGO_CHAIN

_MODEL = {"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": json.loads(os.environ.get("BENCH_MODEL", "{}"))}
_WORKFLOW = [{"type": "memory"}, {"type": "prompt"}, {"type": "llm"}]

DJANGO_CHAIN["LLM"] = {
    "PROVIDERS": {"clock": "benchmarks.clock_model:build"},
    "MODELS": {"default": _MODEL | {"PROVIDER": os.environ.get("BENCH_PROVIDER", "fake")}},
}
DJANGO_CHAIN["CHAT"] |= {"DEFAULT_WORKFLOW": json.loads(os.environ.get("BENCH_WORKFLOW", "null")) or _WORKFLOW}
