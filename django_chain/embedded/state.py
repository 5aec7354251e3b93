"""What the embedded services leave in DATA_DIR for other commands: where they listen, and local secrets.

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
    """A SECRET_KEY for this machine."""
    return _kept("secret_key", secrets.token_urlsafe(48))


def demo_password() -> str:
    """The password of the demo's user in this DATA_DIR."""
    return _kept("demo_password", secrets.token_urlsafe(9))


def _kept(name: str, fresh: str) -> str:
    """The text kept in DATA_DIR under `name`: made once, readable by its owner alone."""
    path = data_dir() / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(fresh)
    try:
        # Whole or not at all, and only the first of two processes wins.
        os.link(draft, path)
    except FileExistsError:
        return path.read_text().strip()
    finally:
        draft.unlink()
    return fresh
