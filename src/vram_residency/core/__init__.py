"""What every floor stands on: errors, text, identifiers, keys, clocks, context."""
