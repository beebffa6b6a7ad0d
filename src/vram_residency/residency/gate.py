"""The gate: nothing executes that was not verified first (residency.md section 5)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vram_residency.policy import Finding
from vram_residency.residency.damage import Damage
from vram_residency.residency.options import Enforcement
from vram_residency.residency.recorder import Recorder
from vram_residency.residency.registry import Record, Registry
from vram_residency.residency.scope import Scope
from vram_residency.residency.shard import SealedShard, Verification
from vram_residency.residency.verifier import Verifier
from vram_residency.residency.views import Views


class Gate:
    """Hands out views of shards that were verified a moment ago.

    ``would_have_blocked`` counts the executions that only a lesser mode than ``enforce`` let through.
    """

    def __init__(
        self, *, registry: Registry, verifier: Verifier, recorder: Recorder, enforcement: Enforcement
    ) -> None:
        self.would_have_blocked = 0
        self._registry = registry
        self._verifier = verifier
        self._recorder = recorder
        self._enforcement = enforcement
        self._lock = threading.Lock()

    def announce(self) -> None:
        """Record a gate that does not enforce: turning it off is itself an event."""
        if self._enforcement != "enforce":
            finding = Finding("gate_not_enforced", f"the execution gate runs in mode '{self._enforcement}'")
            self._recorder.policy_violation(finding, action_taken="allowed_by_configuration")

    @contextmanager
    def open(self, handle: SealedShard | str, scope: Scope, *, recheck: bool) -> Iterator[Views]:
        """Verify, hand out views, take them back. The shard cannot be freed meanwhile."""
        with ExitStack() as block:
            # Under one lock, so that a shard is either in use or gone, never both.
            with self._registry.lock:
                record = self._verifier.admit(handle)
                block.enter_context(self._registry.using(record))
            views = Views(record.layout, record.content)
            try:
                self._check(record, scope)
                yield views
                if recheck:
                    self._check(record, scope)
            finally:
                views.close()

    def _check(self, record: Record, scope: Scope) -> None:
        if self._enforcement == "off":
            return
        if self._enforcement == "enforce":
            self._verifier.verify(record, scope, at_gate=True)
            return
        result, damage = self._verifier.inspect(record, scope)
        if damage is None:
            self._recorder.verified(record, result, at_gate=True)
        else:
            self._let_through(damage, result)

    def _let_through(self, damage: Damage, result: Verification) -> None:
        with self._lock:
            self.would_have_blocked += 1
        self._recorder.verification_failed(
            damage, severity="CRITICAL", action_taken="allowed_by_configuration", result=result
        )
