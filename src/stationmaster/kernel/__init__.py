"""What every part shares: errors, identifiers, time, paging and the principal."""
