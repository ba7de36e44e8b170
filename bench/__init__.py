"""The suite. Its import comes before torch's, which is when the mode of the processor's library can be chosen."""

from carryover.bench.host import processor

processor.choose()
