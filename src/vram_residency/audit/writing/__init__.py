"""From an accepted event to a durable entry: journal, buffer, ledger, opening and recovery."""
