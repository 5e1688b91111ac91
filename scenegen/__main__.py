"""``python -m scenegen``: the command line where the ``scenegen`` script is not on the PATH."""

from __future__ import annotations

import sys

from scenegen.cli import main

if __name__ == "__main__":
    sys.exit(main())
