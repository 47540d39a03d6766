"""AnomalyCLIP, learned from the classes of whole videos: training and scores.

Its network is in `zsad_lib.models.anomaly_clip`, its loss in `zsad_lib.losses`.
"""
