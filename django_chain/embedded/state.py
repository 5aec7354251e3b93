"""What the embedded services leave in DATA_DIR for other commands: where they listen, and a local secret.

Imported by the settings, so it uses the standard library alone.
"""

import json
import os
import secrets
from functools import cache
from pathlib import Path

SERVICES_FILE = "services.json"


def data_dir() -> Path:
    """DATA_DIR, or `.data` beside the project's packages."""
    chosen = os.environ.get("DATA_DIR")
    return Path(chosen).expanduser().resolve() if chosen else Path(__file__).resolve().parents[2] / ".data"


@cache
def running_services() -> dict[str, str]:
    """Variables (DATABASE_URL, REDIS_URL, OPENAI_BASE_URL, …) of the services that a demo runs in DATA_DIR."""
    try:
        found = json.loads((data_dir() / SERVICES_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def local_secret() -> str:
    """A SECRET_KEY for this machine, made once and kept in DATA_DIR, readable by its owner alone."""
    path = data_dir() / "secret_key"
    try:
        return path.read_text().strip()
    except OSError:
        path.parent.mkdir(parents=True, exist_ok=True)
    key = secrets.token_urlsafe(48)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return key
