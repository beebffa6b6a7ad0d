"""The program ``vram``: the only place that prints and exits (spec: cli.md)."""
