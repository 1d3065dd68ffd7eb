"""Choices of users, free of TensorFlow, so that commands can name it before they import that."""

LEARNING_RATES = {  # by default, for each optimizer
    "sgd": 0.05,  # ResNet (He et al. 2015, section 3.4): 0.1 for batches of 256; smaller ones take less
    "rmsprop": 0.002,  # EfficientNetV2 (Tan and Le 2021): 0.256 for batches of 4096, here for 32
    "adamw": 0.001,  # AdamW's default in Keras and PyTorch; Swin (Liu et al. 2021): for batches of 1024
}
STRATEGIES = ("auto", "one", "mirrored", "multiworker")
SCHEDULES = ("cosine", "inverse_sqrt")
