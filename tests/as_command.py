"""Lets the server that starts commands for tests import kvision as a command does, without its networks."""

import sys

sys.argv = ["kvision-tests"]
