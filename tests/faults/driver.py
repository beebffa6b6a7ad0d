"""A process that plays one scenario on real files and says what it was told in a mapped file.

``python -m tests.faults.driver SCENARIO FOLDER RECORD`` is run under strace, which strikes one of its system
calls. Exit code 0 at the end of the story, 3 where it gave up, 1 where something else came out.
"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import GaveUpError, Record, Stage

GAVE_UP = 3


def main() -> int:
    name, folder, record = sys.argv[1:]
    descriptor = os.open(record, os.O_RDWR)
    memory = mmap.mmap(descriptor, Record.BYTES)
    os.close(descriptor)
    scenario = SCENARIOS[name]
    stage = Stage(Path(folder), Record(memory), **scenario.options)
    try:
        scenario.drive(stage)
    except GaveUpError:
        return GAVE_UP
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # as a kill would: nothing is tidied up
