"""What holds for all tests."""

from __future__ import annotations

import signal

import hypothesis

# On a machine under load a call may take any time: how long it takes is no property of the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# Where pytest is started with `&` it is ignored, and commands would inherit that and never stop by it.
signal.signal(signal.SIGINT, signal.default_int_handler)
