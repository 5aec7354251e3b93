"""Settings from the environment. The most important ones; docs/settings.md has them all.

| variable | meaning | without it |
|---|---|---|
| DATABASE_URL | PostgreSQL with pgvector | the embedded server of DATA_DIR, if `make demo` runs it |
| REDIS_URL | Redis or Valkey | the same |
| OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL | any OpenAI-compatible endpoint | the embedded model |
| OPENAI_CONTEXT_TOKENS | that model's window | unknown, but for the embedded model |
| SECRET_KEY | Django's secret | a key made once and kept in DATA_DIR |
| DEBUG | `1` for development | off |
| ALLOWED_HOSTS, CSRF_TRUSTED_ORIGINS | comma-separated | loopback names; none |
| CHAT_ALLOWED_ORIGINS | origins whose cookie sockets are served | the page's own |
| DATA_DIR | where the embedded services keep their data | `.data` in the project |
"""

import os
import sys
from pathlib import Path
from typing import Any

import dj_database_url
import django

from django_chain.embedded import state

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = state.data_dir()


def _env(name: str, default: str = "") -> str:
    return os.environ.get(name, "") or state.running_services().get(name, "") or default


def _env_list(name: str, default: str = "") -> list[str]:
    return [item.strip() for item in _env(name, default).split(",") if item.strip()]


DEBUG = _env("DEBUG") == "1"
SECRET_KEY = _env("SECRET_KEY") or state.local_secret()
ALLOWED_HOSTS = _env_list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _env_list("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "kernel",
    "accounts",
    "llm",
    "memory",
    "vectorstore",
    "chat",
    "frontend",
    "django_chain",
    "channels",
    "allauth",
    "allauth.account",
    "ninja",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
]

if "runserver" in sys.argv[1:2]:
    # Daphne's runserver serves sockets too. Elsewhere the app would only cost its import.
    INSTALLED_APPS.insert(0, "daphne")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "frontend.middleware.content_security_policy",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "django_chain.urls"
ASGI_APPLICATION = "django_chain.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES: dict[str, Any] = {
    "default": {
        **dj_database_url.parse(_env("DATABASE_URL", "postgres://localhost:5432/django_chain")),
        "CONN_MAX_AGE": 0,
    }
}
DATABASES["default"].setdefault("OPTIONS", {})
# A session's queries may not hang, and a waiting unit gives up soon: the client then gets a typed error.
DATABASES["default"]["OPTIONS"] |= {
    "pool": {
        "min_size": 2,
        "max_size": int(_env("DATABASE_POOL", "12")),
        "timeout": 2,
        # The pool waits twice as long after each failure, for this many seconds at most. Longer, and a process would
        # find the database back after others have, who then take its answers for abandoned.
        "reconnect_timeout": 2,
        "max_lifetime": 1800,
    },
    "connect_timeout": 3,
    "options": "-c statement_timeout=5000 -c lock_timeout=3000 -c idle_in_transaction_session_timeout=15000",
}

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = _env("ACCOUNT_EMAIL_VERIFICATION", "optional")
LOGIN_REDIRECT_URL = "/"
LOGIN_URL = "account_login"
_mailer = _env("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
if django.VERSION >= (6, 1):  # where the one setting became a dict of mailers, and the old name warns
    MAILERS = {"default": {"BACKEND": _mailer}}
else:
    EMAIL_BACKEND = _mailer

# Sign-in counts its attempts in the cache: in the database, so that people can sign in while Redis is away, and the
# counts hold for all processes. accounts' migrations make the table.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "accounts_cache"}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # An idle group is silent for longer than the client library's own read timeout.
        "CONFIG": {
            "hosts": [{"address": _env("REDIS_URL", "redis://localhost:6379/0"), "socket_timeout": None}],
            "prefix": "chain-layer",
        },
    },
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# The files are small and served by the app itself: no collectstatic step stands between a clone and a page.
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_ALLOW_ALL_ORIGINS = False

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if _env("HTTPS") == "1":
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000

CELERY_BROKER_URL = CELERY_RESULT_BACKEND = _env("REDIS_URL", "redis://localhost:6379/0")

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "django_chain.logs.Formatter",
            "format": "{asctime} {levelname} {name} {message}",
            "style": "{",
        }
    },
    "filters": {
        "no_traceback": {"()": "django_chain.logs.NoTraceback"},
        "expected": {"()": "django_chain.logs.NotReadyIsNoError"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": _env("LOG_LEVEL", "INFO")},
    # Request lines of HTTP client libraries would name provider URLs at INFO.
    "loggers": {
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "openai": {"level": "WARNING"},
        # Uvicorn has set up handlers of its own by now, which redact nothing.
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.access": {"handlers": [], "propagate": True},
        "uvicorn.error": {"filters": ["no_traceback"]},
        "django.request": {"filters": ["expected"]},
    },
}

# LangSmith tracing is switched on by environment variables and sends prompts out; only an explicit choice may do that.
os.environ.setdefault("LANGSMITH_TRACING", "false")
os.environ.setdefault("LANGCHAIN_TRACING_V2", "false")

_model_options: dict[str, Any] = {"api_key": _env("OPENAI_API_KEY", "none"), "temperature": 0.2}
if _env("OPENAI_BASE_URL"):
    _model_options["base_url"] = _env("OPENAI_BASE_URL")

DJANGO_CHAIN: dict[str, Any] = {
    "LLM": {
        "MODELS": {
            "default": {
                "PROVIDER": _env("LLM_PROVIDER", "openai"),
                "MODEL": _env("OPENAI_MODEL", "smollm2-135m-instruct"),
                "OPTIONS": _model_options,
                "CONTEXT_TOKENS": int(_context) if (_context := _env("OPENAI_CONTEXT_TOKENS")) else None,
            },
            "fake": {"PROVIDER": "fake", "MODEL": "fake"},
        },
    },
    "REDIS": {"URL": _env("REDIS_URL", "redis://localhost:6379/0")},
    "CHAT": {"ALLOWED_ORIGINS": _env_list("CHAT_ALLOWED_ORIGINS")},
}
