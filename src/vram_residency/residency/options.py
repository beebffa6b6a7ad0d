"""Everything about a manager that is a choice; each default is the safe one."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from vram_residency.core.clock import SYSTEM_CLOCK, Clock
from vram_residency.core.ed25519 import SigningKey
from vram_residency.core.errors import ConfigurationError
from vram_residency.policy.rules import Limits
from vram_residency.residency.observer import NOBODY, Observer
from vram_residency.residency.scope import Scope

Enforcement = Literal["off", "log", "enforce"]


class ManagerOptions(Struct, frozen=True, kw_only=True):
    """The choices. Raises ConfigurationError where one means nothing.

    capacity_bytes, headroom_bytes: None asks the device (residency.md section 1).
    gate_scope: None is fast on cuda and sample on host.
    enforcement: what the gate does on damage: ``enforce`` refuses, ``log`` counts and lets through,
        ``off`` does not verify; both lesser modes are recorded as policy violations.
    audit_required: an audit failure fails the operation (the default of ``vram serve``).
    is_shareable: whether shards on a card can be lent to other processes; on the host they always can.
    attestation_key: the Ed25519 key of ``attest``; None makes one that lives as long as the manager.
    observer: who counts what the manager does, for metrics.
    """

    capacity_bytes: int | None = None
    headroom_bytes: int | None = None
    limits: Limits = Limits()
    gate_scope: Scope | None = None
    enforcement: Enforcement = "enforce"
    audit_required: bool = False
    is_shareable: bool = False
    attestation_key: SigningKey | None = None
    clock: Clock = SYSTEM_CLOCK
    observer: Observer = NOBODY

    def __post_init__(self) -> None:
        # A word that is misspelt must not quietly mean a weaker gate.
        if self.enforcement not in get_args(Enforcement):
            raise ConfigurationError("enforcement", f"must be off, log or enforce, not {self.enforcement!r}")
        if self.gate_scope is not None and not isinstance(self.gate_scope, Scope):
            raise ConfigurationError("gate_scope", "must be a Scope: FULL, FAST or sample(…)")
