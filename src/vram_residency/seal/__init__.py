"""What was measured, signed: the statement, its signature, and the attestation for third parties."""

from vram_residency.seal.attestation import Attestation, attest, open_attestation
from vram_residency.seal.signature import SealKey
from vram_residency.seal.statement import Approval, Statement

__all__ = ["Approval", "Attestation", "SealKey", "Statement", "attest", "open_attestation"]
