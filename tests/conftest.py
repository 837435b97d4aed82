"""Settings of every test: no deadlines, for slow or busy machines."""

from hypothesis import settings

settings.register_profile("timetrial", deadline=None)
settings.load_profile("timetrial")
