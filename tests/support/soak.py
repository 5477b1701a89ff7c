"""The switch of `make soak`."""

import os

SOAK = bool(os.environ.get("WSSS_SOAK"))
"""Whether `make soak` runs the tests: more kills, longer outages, and tests that take too long for `make test`."""
