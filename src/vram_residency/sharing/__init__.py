"""A sealed shard in several processes: lent as a descriptor over a Unix socket, verified again before use.

On the host device the kernel's seals go with the memory: no borrower can change it. Revocation is
cooperative: a borrower keeps what it has mapped until it lets go (gpu.md, "Sharing").
"""

from vram_residency.sharing.borrower import BorrowedShard, borrow
from vram_residency.sharing.server import ShareServer

__all__ = ["BorrowedShard", "ShareServer", "borrow"]
