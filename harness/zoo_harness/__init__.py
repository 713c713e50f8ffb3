"""The harness: fine-tunes a backbone that a plugin declares, scores it, and writes the run down.

It imports :mod:`zoo` and the data package ``zoo_cards``, never a plugin by name.
"""
