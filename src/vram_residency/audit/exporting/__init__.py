"""The log for other systems: one record an entry, in the formats that a SIEM takes."""
