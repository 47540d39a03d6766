"""The main method: windows, training with InfoNCE and CPC, and every formula of its score.

Its networks are in `zsad_lib.models`, its losses in `zsad_lib.losses`.
"""
