#!/usr/bin/env python3
"""The latency of each token of one model on one device; `--help` lists the flags."""

import sys

from xpubench.cli.main import script

if __name__ == "__main__":
    sys.exit(script("generate"))
