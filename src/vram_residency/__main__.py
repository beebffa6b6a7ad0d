"""``python -m vram_residency`` is ``vram``."""

import sys

from vram_residency.cli.main import main

sys.exit(main())
