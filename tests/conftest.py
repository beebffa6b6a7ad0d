"""Hypothesis profiles: no deadlines, since two shared cores make every clock unreliable."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=_QUIET)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, print_blob=True, suppress_health_check=_QUIET
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
