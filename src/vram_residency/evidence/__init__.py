"""Proof bundles: one file that a third party verifies offline, and reads."""
