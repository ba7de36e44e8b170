"""Carryover: does a plug-in trained on one CLIP backbone still work on its update?

In a checkout ``bench``, ``methods`` and ``datasets`` stand at the top and are linked here, so that all code has
one name, ``carryover``, and no other package's name is taken.
"""

__version__ = "0.2.0"
