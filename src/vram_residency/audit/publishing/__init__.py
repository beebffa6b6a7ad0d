"""What outsiders get: proofs, tiles, and what witnesses answer."""
