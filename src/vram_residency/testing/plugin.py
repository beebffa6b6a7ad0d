"""The pytest plugin: fixtures for users of the library (entry point ``pytest11``).

pytest imports this module at every start, so it imports nothing but pytest; the library comes in with the
first test that asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vram_residency.narration import Story


@pytest.fixture
def narration() -> Iterator[Story]:
    """Everything that is narrated during the test: ``narration.one(action="seal")``, ``.includes(…)``."""
    from vram_residency.narration import capture_narration

    with capture_narration() as story:
        yield story
