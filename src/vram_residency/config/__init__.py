"""What a worker is told, from one TOML file, the environment and flags, and the worker made of it."""
