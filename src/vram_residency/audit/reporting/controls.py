"""The one table of controls, by standard.

Numbers are those of the standards. Titles are in our own words and replace no standard's text. A control that
stands here with no kind of evidence is one that readers look for, and that this software does not serve.
"""

from __future__ import annotations

from typing import Final

from vram_residency.audit.reporting.control import Control, Standard, StandardId
from vram_residency.audit.reporting.legal_controls import AI_ACT, GDPR
from vram_residency.audit.reporting.security_controls import ISO27001, SOC2

STANDARDS: Final[dict[StandardId, Standard]] = {
    "soc2": Standard("SOC 2: Trust Services Criteria (2017, points of focus of 2022)", "Criteria"),
    "iso27001": Standard("ISO/IEC 27001:2022, Annex A", "Controls"),
    "gdpr": Standard("GDPR: Regulation (EU) 2016/679", "Articles"),
    "ai-act": Standard("EU AI Act: Regulation (EU) 2024/1689", "Articles"),
}


CONTROLS: Final[tuple[Control, ...]] = SOC2 + ISO27001 + GDPR + AI_ACT


def controls_of(standard: StandardId) -> tuple[Control, ...]:
    """The rows of one standard, in its order."""
    return tuple(control for control in CONTROLS if control.standard == standard)
