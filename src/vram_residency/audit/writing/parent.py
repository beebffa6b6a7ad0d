"""What a fork records of the log that it goes on from (spec: audit-log.md section 3, ``--fork``)."""

from __future__ import annotations

import os

from vram_residency.audit.format.checkpoint import open_signed
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.verification import verify
from vram_residency.audit.store.directory import Directory, Parent
from vram_residency.core.errors import LogDamagedError


def read_parent(directory: str | os.PathLike[str]) -> Parent:
    """Origin, size and root of a log's newest checkpoint, once its entries hash to it.

    Raises ConfigurationError (no log there), LogDamagedError, InvalidInputError.
    """
    place = Directory(directory)
    config, _ = place.read_config()
    # 1. Whoever goes on from a log that contradicts itself would hand on the damage as history. Without its
    #    keys here it is unverifiable, though consistent: a copy from another machine is just that.
    verdict = verify(place.path)
    if verdict.first_bad is not None and verdict.verdict != "unsealed":
        raise LogDamagedError(str(place), verdict.first_bad.offset, verdict.first_bad.reason)
    # 2. What it signed last.
    try:
        signed = open_signed(
            reading.read_small(place.checkpoint), config.verifier_keys(), origin=config.origin
        )
    except (OSError, ValueError) as error:
        raise LogDamagedError(
            str(place.checkpoint), None, f"not a checkpoint of this log: {error}"
        ) from error
    return Parent(origin=config.origin, tree_size=signed.size, root_hash=signed.root.hex())
