"""Reports for those who audit by a standard: evidence per control, and never a claim of compliance."""
