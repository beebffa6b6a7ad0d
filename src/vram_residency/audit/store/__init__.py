"""The disk: the directory, its files and modes, the keys, the segments, the stored leaf hashes."""
