"""What keeps the kit itself in order: set-up, lock, the trial on a fresh machine, its speed, its front page and its
findings.

Nothing here computes a number of a table.
"""
