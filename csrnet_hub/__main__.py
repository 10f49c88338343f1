"""python -m csrnet_hub: the command line if ``csrnet`` is not on the path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
