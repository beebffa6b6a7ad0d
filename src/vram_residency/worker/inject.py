"""What the application hands to every route handler that asks for it by name."""

from __future__ import annotations

from typing import TypeAlias

from litestar.di import NamedDependency

from vram_residency.worker.committing import Committing
from vram_residency.worker.service import WorkerService
from vram_residency.worker.threads import Threads

#: The parameter must be called ``service``.
TheService: TypeAlias = NamedDependency[WorkerService]
#: The parameter must be called ``threads``.
TheThreads: TypeAlias = NamedDependency[Threads]
#: The parameter must be called ``committing``.
TheCommitting: TypeAlias = NamedDependency[Committing]
