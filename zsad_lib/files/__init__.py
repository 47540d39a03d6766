"""What lies on disk and how it is read and written whole: videos, manifests, score files, weights, downloads.

Nothing here knows a model or a metric, and nothing imports torch when it is imported.
"""
