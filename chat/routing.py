"""Socket URLs. An unknown path gets the same typed answer as an unknown session."""

from channels.routing import URLRouter
from django.urls import re_path

from chat.consumers import ChatConsumer, WorkflowConsumer

sockets = URLRouter(
    [
        re_path(r"^ws/chat/(?P<session_id>[^/]{1,64})/$", ChatConsumer.as_asgi()),
        re_path(r"^ws/workflows/$", WorkflowConsumer.as_asgi()),
        re_path(r"", ChatConsumer.as_asgi()),
    ]
)
