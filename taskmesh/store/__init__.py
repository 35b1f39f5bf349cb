"""Where a hub keeps what it has accepted: nowhere but in its memory, or in SQLite."""
