"""What a reader sees of a run: tables, figures, films, pages. Matplotlib is at home here.

Nothing here computes a score or a metric.
"""
