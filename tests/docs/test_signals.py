"""The table of signals names those that exist."""

import re
from pathlib import Path

from django.conf import settings
from django.dispatch import Signal

from llm import signals


def test_every_signal_is_in_the_table_and_no_other() -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "extending.md").read_text()
    rows = [line.split("|")[1] for line in page.partition("## Signals")[2].splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == {name for name, value in vars(signals).items() if isinstance(value, Signal)}
