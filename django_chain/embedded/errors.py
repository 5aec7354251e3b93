"""What can go wrong while the embedded services start.

ChainError
├── Misconfigured   another setting, package or directory mends it; the text says which
└── StartError      a program would not start; the text holds the end of its log
"""

from kernel.errors import ChainError, Misconfigured

__all__ = ["ChainError", "Misconfigured", "StartError"]


class StartError(ChainError):
    code = "start_failed"
    default_message = "An embedded service did not start."
