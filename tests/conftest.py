"""Settings of every test: what a slow or busy machine may take as long as it likes over."""

from hypothesis import settings

settings.register_profile("timetrial", deadline=None)
settings.load_profile("timetrial")
