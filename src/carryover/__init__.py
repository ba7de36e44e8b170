"""Carryover: does a plug-in trained on one CLIP backbone still work on its update?

In a checkout ``bench``, ``methods`` and ``datasets`` stand at the top and are linked here, so that all code has
one name, ``carryover``, and no other package's name is taken.
"""

from carryover.bench.host import processor

__version__ = "0.2.0"

processor.choose()  # before torch is imported, for then its library for products of matrices has taken its mode
