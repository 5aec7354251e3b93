"""The ASGI application: HTTP to Django, sockets to chat."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_chain.settings")

application = ProtocolTypeRouter({"http": get_asgi_application()})
