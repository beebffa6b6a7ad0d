"""What holds for every test: narration as if unconfigured, and hypothesis without deadlines.

Deadlines are off since two shared cores make every clock unreliable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from vram_residency.narration import configure

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=_QUIET)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, print_blob=True, suppress_health_check=_QUIET
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def _narration_as_if_unconfigured() -> Iterator[None]:
    """A command run in this process configures narration: the next test must not inherit that."""
    yield
    if structlog := sys.modules.get("structlog"):
        structlog.reset_defaults()
    configure(form="logging")
