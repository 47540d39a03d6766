"""One folder for each method: how it is trained and how it scores.

Nothing here draws, prints a table or knows a notebook.
"""
