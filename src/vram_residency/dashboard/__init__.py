"""The page for people on call: one screen over a worker, served by it (worker.md, "The page")."""

from __future__ import annotations

from vram_residency.dashboard.board import Dashboard

__all__ = ["Dashboard"]
