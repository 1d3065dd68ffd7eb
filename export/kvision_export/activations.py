"""Activations at the end of networks: how they make probabilities of logits, and how answers are compared."""

import numpy as np

from kvision.intervals import share

SMALLEST = 1e-30  # of what is divided by, or a logarithm is taken of
FAINTEST = 2.0**-9  # probability that 8 bits hold, half of a step


class Softmax:
    """One class is right: the last axis is a distribution over the classes."""

    operator = "SOFTMAX"  # in TFLite

    @staticmethod
    def probabilities(logits: np.ndarray) -> np.ndarray:
        """The probabilities that follow from logits."""
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)

    @staticmethod
    def logits(probabilities: np.ndarray, least: float = SMALLEST) -> np.ndarray:
        """Logits, as far as probabilities of at least `least` tell them."""
        return np.log(np.maximum(probabilities, least))

    @staticmethod
    def comparable(logits: np.ndarray) -> np.ndarray:
        """Logits without what has no effect: a constant."""
        return logits - logits.mean(-1, keepdims=True)

    @staticmethod
    def classes(probabilities: np.ndarray) -> np.ndarray:
        """The most probable class."""
        return probabilities.argmax(-1).astype(np.min_scalar_type(probabilities.shape[-1] - 1))

    @staticmethod
    def divergence(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
        """The Kullback-Leibler divergence of two answers' logits, in nats, without the last axis."""
        logs = [logits - _log_sum_exp(logits) for logits in (expected, found)]
        return (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1)

    @staticmethod
    def agreement(expected: np.ndarray, found: np.ndarray) -> float:
        """The share of equal classes."""
        return share(expected == found)

    @staticmethod
    def are_probabilities(outputs: np.ndarray) -> bool:
        """Whether a network's outputs are such probabilities."""
        return np.allclose(outputs.sum(-1), 1, atol=1e-3)


class Sigmoid:
    """Any number of classes is right: each has a probability of its own. Methods as those of `Softmax`."""

    operator = "LOGISTIC"

    @staticmethod
    def probabilities(logits):
        return np.exp(-np.logaddexp(0, -logits))

    @staticmethod
    def logits(probabilities, least=SMALLEST):
        return Softmax.logits(probabilities, least) - Softmax.logits(1 - probabilities, least)

    @staticmethod
    def comparable(logits):
        return logits

    @staticmethod
    def classes(probabilities):
        """Whether each class is more probable than not."""
        return probabilities > 0.5

    @staticmethod
    def divergence(expected, found):
        """The mean over the classes of the divergence of each."""
        share = Sigmoid.probabilities(expected)
        present = np.logaddexp(0, -found) - np.logaddexp(0, -expected)
        absent = np.logaddexp(0, found) - np.logaddexp(0, expected)
        return (share * present + (1 - share) * absent).mean(-1)

    @staticmethod
    def agreement(expected, found):
        """The share of the classes given by either that both give; absent ones, the most, do not count."""
        either = (expected | found).sum()
        return float((expected & found).sum() / either) if either else 1.0

    @staticmethod
    def are_probabilities(outputs):
        return bool(((outputs >= 0) & (outputs <= 1)).all())


Activation = type[Softmax] | type[Sigmoid]
ACTIVATIONS: dict[str, Activation] = {"softmax": Softmax, "sigmoid": Sigmoid}  # by `Task.activation`
OPERATORS = tuple(activation.operator for activation in ACTIVATIONS.values())


def _log_sum_exp(logits):
    largest = logits.max(-1, keepdims=True)
    return largest + np.log(np.exp(logits - largest).sum(-1, keepdims=True))
