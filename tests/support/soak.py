"""What `make soak` asks of the tests."""

import os

SOAK = bool(os.environ.get("WSSS_SOAK"))
"""Whether `make soak` runs them: more kills, longer outages, and what takes too long for every day."""
