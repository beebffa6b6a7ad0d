"""From the bytes on disk to a verdict, or to the entries that were asked for."""
