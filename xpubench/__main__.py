"""`python -m xpubench`."""

import sys

from xpubench.cli.main import main

sys.exit(main())
