"""Short-lived bearer tokens for sockets and REST.

Signed with SECRET_KEY and bound to the user's session hash: a changed password, a deactivated account or a new secret
ends every token. They travel in `hello` and in the Authorization header, never in a URL.
"""

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core import signing
from django.utils.crypto import constant_time_compare

from kernel.conf import config
from kernel.errors import NotAuthenticated

_SALT = "django-chain.token.v1"
_REFUSED = "The token is not valid or has expired; get a new one from POST /api/v1/token."


def mint(user: AbstractBaseUser) -> str:
    """A token for `user`, good for CHAT['TOKEN_LIFETIME'] seconds."""
    return signing.dumps({"u": str(user.pk), "h": _fingerprint(user)}, salt=_SALT)


def user_of(token: str) -> AbstractBaseUser:
    """The active user a token was minted for. Raises NotAuthenticated."""
    try:
        claims: Any = signing.loads(token, salt=_SALT, max_age=timedelta(seconds=config().chat.token_lifetime))
    except signing.BadSignature as error:
        raise NotAuthenticated(_REFUSED) from error
    user = get_user_model()._default_manager.filter(pk=claims["u"], is_active=True).first()
    if user is None or not constant_time_compare(claims["h"], _fingerprint(user)):
        raise NotAuthenticated(_REFUSED)
    return user


def _fingerprint(user: AbstractBaseUser) -> str:
    return user.get_session_auth_hash()[-16:]
