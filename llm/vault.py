"""Keys at rest: encrypted with LLM["ENCRYPTION_KEYS"], or else with a key derived from SECRET_KEY.

The first key writes, every one reads: put a new one in front, run `manage.py llm rotate-keys`, drop the old one. What
was written under SECRET_KEY stays readable, so that the first entry of ENCRYPTION_KEYS is added in the same way.
"""

from base64 import urlsafe_b64encode
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from kernel.conf import config
from kernel.errors import Misconfigured


def encrypt(secret: str) -> str:
    return _fernet().encrypt(secret.encode()).decode()


def decrypt(token: str) -> str:
    """Raises Misconfigured if none of the keys fits: it was changed, or the row comes from another installation."""
    try:
        return _fernet().decrypt(token.encode()).decode()
    except InvalidToken as error:
        raise Misconfigured(_UNREADABLE) from error


def rotate(token: str) -> str:
    """The same secret, encrypted with the first key. Raises Misconfigured as `decrypt` does."""
    try:
        return _fernet().rotate(token.encode()).decode()
    except InvalidToken as error:
        raise Misconfigured(_UNREADABLE) from error


_UNREADABLE = (
    "A stored model key can't be decrypted: put the key that it was written with back into"
    " DJANGO_CHAIN['LLM']['ENCRYPTION_KEYS'] (or the old SECRET_KEY into SECRET_KEY_FALLBACKS), or save the model"
    " anew with its key."
)


def _fernet() -> MultiFernet:
    fallbacks = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return MultiFernet([_derived(text) for text in (*config().llm.encryption_keys, *fallbacks)])


@cache
def _derived(text: str) -> Fernet:
    """Any text will do as a key; SECRET_KEY is never used for two things as it stands."""
    derive = HKDF(algorithm=SHA256(), length=32, salt=b"django-chain", info=b"model keys at rest")
    return Fernet(urlsafe_b64encode(derive.derive(text.encode())))
