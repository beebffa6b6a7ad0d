"""How the parts of a manager are put together: the one place that knows them all."""

from __future__ import annotations

from typing import NamedTuple

from vram_residency.audit.log import AuditLogger
from vram_residency.device.base import Device
from vram_residency.policy import Policy
from vram_residency.residency.attester import Attester
from vram_residency.residency.budget import Budget
from vram_residency.residency.custody import Custody
from vram_residency.residency.gate import Gate
from vram_residency.residency.guard import Guard
from vram_residency.residency.identity import Identity
from vram_residency.residency.lender import Lender
from vram_residency.residency.loader import Loader
from vram_residency.residency.notary import Notary
from vram_residency.residency.options import ManagerOptions
from vram_residency.residency.recorder import Recorder
from vram_residency.residency.registry import Registry
from vram_residency.residency.sealer import Sealer
from vram_residency.residency.verifier import Verifier
from vram_residency.seal import SealKey


class Parts(NamedTuple):
    """One manager's parts; they share the registry, the budget and the recorder."""

    registry: Registry
    budget: Budget
    recorder: Recorder
    guard: Guard
    verifier: Verifier
    sealer: Sealer
    gate: Gate
    custody: Custody
    attester: Attester
    lender: Lender


def assemble(
    device: Device,
    key: SealKey,
    audit_logger: AuditLogger,
    *,
    identity: Identity,
    policy: Policy,
    options: ManagerOptions,
) -> Parts:
    """Build the parts; nothing is checked, allocated or recorded yet."""
    clock = options.clock
    registry = Registry()
    headroom_bytes = device.headroom_bytes if options.headroom_bytes is None else options.headroom_bytes
    budget = Budget(total_bytes=device.total_bytes, headroom_bytes=headroom_bytes)
    recorder = Recorder(
        audit_logger, identity, audit_required=options.audit_required, observer=options.observer
    )
    audit_logger.on_failure(recorder.audit_write_failed)
    guard = Guard(device, policy, recorder, gpu_device=identity.gpu_device)
    verifier = Verifier(
        registry=registry, key=key, device=device.info, guard=guard, recorder=recorder, clock=clock
    )
    sealer = Sealer(
        loader=Loader(device, budget, recorder, clock),
        notary=Notary(key, identity, guard=guard, recorder=recorder, clock=clock),
        registry=registry,
        guard=guard,
        recorder=recorder,
        clock=clock,
    )
    gate = Gate(registry=registry, verifier=verifier, recorder=recorder, enforcement=options.enforcement)
    custody = Custody(device=device, registry=registry, budget=budget, recorder=recorder)
    attester = Attester(verifier, options.attestation_key)
    lender = Lender(registry=registry, attester=attester, recorder=recorder)
    return Parts(registry, budget, recorder, guard, verifier, sealer, gate, custody, attester, lender)
