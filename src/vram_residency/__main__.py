"""``python -m vram_residency`` is ``vram``."""

import sys

from vram_residency.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
