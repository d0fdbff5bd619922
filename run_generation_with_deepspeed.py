#!/usr/bin/env python3
"""The latency of each token of one model shared by several ranks, under mpirun; `--help` lists the flags."""

import sys

from xpubench.cli.tensor_parallel import main

if __name__ == "__main__":
    sys.exit(main())
