"""Commands to train, evaluate, predict and look."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notices would drown what a command prints
