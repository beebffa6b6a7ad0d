"""The CUDA device: memory of the driver's virtual memory calls, read-only once sealed (spec: gpu.md)."""
