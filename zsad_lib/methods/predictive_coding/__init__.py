"""Predictive coding alone, trained from scratch where there are no captions: training and scores.

Its network is in `zsad_lib.models.dpc`.
"""
