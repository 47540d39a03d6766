"""Solutions of the notebooks' exercises: each exercise starts from one, so that a headless run passes."""
