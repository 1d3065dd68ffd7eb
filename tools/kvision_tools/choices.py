"""What users choose from, free of TensorFlow, so that commands can name it before they import that."""

OPTIMIZERS = ("sgd", "rmsprop", "adamw")
STRATEGIES = ("auto", "one", "mirrored", "multiworker")
