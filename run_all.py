#!/usr/bin/env python3
"""The documented entry: ``python run_all.py`` runs the suite, ``python run_all.py --help`` says the rest."""

import sys

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
