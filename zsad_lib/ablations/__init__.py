"""Grids of variants: every row trained and scored on frozen windows, with paired intervals.

Nothing here is needed to score a video.
"""
