"""Settings of every test: no deadlines, for slow or busy machines."""

import importlib.util

if importlib.util.find_spec("hypothesis") is not None:  # tests/gpu runs where it may be missing
    from hypothesis import settings

    settings.register_profile("timetrial", deadline=None)
    settings.load_profile("timetrial")
