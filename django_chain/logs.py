"""What the log leaves out: secrets and personal data (kernel.redaction), and the texts of exceptions."""

import logging
import traceback
from http import HTTPStatus
from typing import Any

from kernel.redaction import redact

#: What uvicorn logs as an exception of its own, though a client's bytes are at fault.
_CLIENTS_FAULT = ("Invalid UTF-8 sequence received from client.",)


class Formatter(logging.Formatter):
    """Redacted lines, and tracebacks without the exceptions' texts: these quote rows, inputs, providers' answers."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's name
        kind, error, _ = ei
        lines = []
        while error is not None:
            lines += [*traceback.format_tb(error.__traceback__), f"{type(error).__module__}.{type(error).__qualname__}"]
            error = error.__cause__
        return "\n".join(line.rstrip("\n") for line in lines) or str(kind)


class NoTraceback(logging.Filter):
    """One line, and no traceback, for what a client did wrong: any visitor could fill the log with them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg in _CLIENTS_FAULT:
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.exc_info = record.exc_text = None
        return True


class NotReadyIsNoError(logging.Filter):
    """A 503 of the readiness check is its answer, asked for every few seconds while a server starts or drains."""

    def filter(self, record: logging.LogRecord) -> bool:
        path = getattr(getattr(record, "request", None), "path", "")
        return not (path == "/readyz" and getattr(record, "status_code", 0) == HTTPStatus.SERVICE_UNAVAILABLE)
