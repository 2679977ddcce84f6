"""`python -m hxmlops_stages STAGE ...`: see `--help`."""

import os
import sys

from hxmlops_stages.program import main

if __name__ == "__main__":
    if os.getpgrp() != os.getpid():
        os.setsid()  # a session of its own, so that a signal can reach all of it
    sys.exit(main(sys.argv[1:]))
