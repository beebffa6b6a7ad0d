"""The bytes: entries, chain, tree, notes, checkpoints, proofs and tiles, parsed and printed without I/O."""
