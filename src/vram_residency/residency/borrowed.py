"""Content that another process sealed and lent: the very same pages, mapped and verified here as well."""

from __future__ import annotations

from collections.abc import Callable

from vram_residency.device.base import ResidencyFault, SealedMemory
from vram_residency.digest import groups
from vram_residency.digest.value import Algorithm, Measurement
from vram_residency.residency.owned import OwnedContent

#: Says why a loan has ended, or None while it lasts.
Ended = Callable[[], str | None]


class BorrowedContent(OwnedContent):
    """Memory on loan: it takes nothing of the budget, and ends to be resident when the loan does."""

    def __init__(self, memory: SealedMemory, ended: Ended, *, algorithm: Algorithm) -> None:
        super().__init__(memory, algorithm=algorithm)
        self.charged_bytes = 0
        self._ended = ended

    def measure(self) -> Measurement:
        """Digest and group values, one after the other through the mapping that is handed out."""
        values = b"".join(groups.group_values(part.view) for part in self.parts())
        return Measurement(self.digest(), values)

    def fault(self) -> ResidencyFault | None:
        """The loan's end comes first: what was revoked is not to be used, however sound it is."""
        why = self._ended()
        return super().fault() if why is None else ResidencyFault("not_resident", why)
