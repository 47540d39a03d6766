"""The exercises of the notebooks: checks that tell a wrong answer why, and solutions.

The library never imports them.
"""
