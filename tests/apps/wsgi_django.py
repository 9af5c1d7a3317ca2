"""A Django project in one file, with the ORM on SQLite."""

import fcntl
import os
import time

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="only for tests",
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("TEST_DATABASE", ":memory:")}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path


def home(request):
    return HttpResponse("pid %d" % os.getpid())


def slow(request):
    time.sleep(float(request.GET.get("s", 1)))
    return HttpResponse("slow, pid %d" % os.getpid())


def held(request):
    """Is answered when the file GATE is there."""
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.02)
    return home(request)


def groups(request):
    """Reads a table."""
    return HttpResponse("%d groups" % Group.objects.count())


def add(request, name):
    Group.objects.create(name=name)
    return groups(request)


urlpatterns = [
    path("", home), path("health", home), path("slow", slow), path("held", held), path("groups", groups),
    path("add/<name>", add),
]

if os.environ.get("TEST_DATABASE"):
    with open(os.environ["TEST_DATABASE"] + ".lock", "w") as lock:
        # Workers import this at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        call_command("migrate", verbosity=0)
application = get_wsgi_application()
