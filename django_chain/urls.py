"""Every URL of the project."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from django_chain.api import api
from django_chain.health import healthz, readyz

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("frontend.urls")),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
    path("healthz", healthz),
    path("readyz", readyz),
]
