"""What the log leaves out."""

import logging
from http import HTTPStatus

#: What uvicorn logs as an exception of its own, though a client's bytes are at fault.
_CLIENTS_FAULT = ("Invalid UTF-8 sequence received from client.",)


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
