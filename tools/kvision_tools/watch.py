"""Ends the workers of a kvision-launch that was killed: the end of this process's input says so.

Its input is the workers' process groups, one a line.
"""

import contextlib
import os
import signal
import sys
import time

SECONDS = 1.5  # between SIGTERM and SIGKILL

if __name__ == "__main__":
    groups = [int(line) for line in sys.stdin]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        if number == signal.SIGTERM:
            time.sleep(SECONDS)
