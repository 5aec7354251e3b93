"""The ASGI application: HTTP to Django, sockets to chat, and the server's start and end."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_chain.settings")

# Django's registry must be ready before anything that imports models.
http = get_asgi_application()

from chat.lifespan import lifespan  # noqa: E402
from chat.routing import sockets  # noqa: E402
from django_chain.bodies import bounded  # noqa: E402
from vectorstore.uploads import most_bytes  # noqa: E402

application = ProtocolTypeRouter({"http": bounded(http, most_bytes), "websocket": sockets, "lifespan": lifespan})
