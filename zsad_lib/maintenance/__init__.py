"""What keeps the kit itself in order: its set-up, its lock, the trial on a fresh machine. Nothing here computes a number of a table."""
