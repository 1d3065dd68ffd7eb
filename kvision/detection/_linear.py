"""Linear SVMs and ridge regression, with the settings of R-CNN (Girshick et al. 2014), in NumPy.

Departure: the SVMs' loss is the squared hinge, whose minimum Newton's method finds in some steps.
"""

import numpy as np

PENALTY, POSITIVE_WEIGHT, BIAS = 1e-3, 2.0, 10.0  # C, its factor for positives, and the feature for the bias
HARD, EASY = -1.0001, -1.2  # scores above which negatives are kept, and below which they are dropped
REFIT = 2000  # new hard negatives after which an SVM is fitted anew
NEWTON_STEPS = 50


class MinedSVM:
    """A linear SVM whose hard negatives are mined.

    Args:
        positives: features `(n, features)`. Without any the SVM says no to everything.

    Attributes:
        weights, bias: of the last fit.
    """

    def __init__(self, positives):
        self.positives = positives
        self.negatives = np.zeros((0, positives.shape[1]), positives.dtype)
        self.weights, self.bias, self.new = np.zeros(positives.shape[1]), 0.0, 0

    def add(self, negatives):
        """Keeps those of the negatives that are hard, and fits anew once there are many."""
        hard = negatives[negatives @ self.weights + self.bias > HARD]
        self.negatives = np.concatenate([self.negatives, hard])
        self.new += len(hard)
        if self.new >= REFIT:
            self.fit()
            self.negatives = self.negatives[self.negatives @ self.weights + self.bias >= EASY]

    def fit(self):
        """Fits the weights to the positives and the negatives so far."""
        if len(self.positives):
            self.weights, self.bias = fit_svm(self.positives, self.negatives, PENALTY, POSITIVE_WEIGHT, BIAS)
        else:
            self.bias = -BIAS
        self.new = 0


def fit_svm(positives, negatives, penalty, positive_weight=1.0, bias_feature=1.0):
    """A linear SVM: the minimum of |w|^2 / 2 + penalty * sum of squared hinges (Keerthi and DeCoste 2005).

    Args:
        positives, negatives: features `(n, features)`.
        penalty: C.
        positive_weight: of a positive's hinge.
        bias_feature: a constant feature whose weight, penalised as the others, makes the bias.

    Returns:
        Weights `(features,)` and bias, float64.
    """
    x = np.concatenate([positives, negatives]).astype(np.float64)
    x = np.pad(x, ((0, 0), (0, 1)), constant_values=bias_feature)
    y = np.repeat([1.0, -1.0], [len(positives), len(negatives)])
    cost = 2 * penalty * np.where(y > 0, positive_weight, 1.0)

    def loss(w):
        return w @ w / 2 + (cost / 2) @ np.maximum(1 - y * (x @ w), 0) ** 2

    w = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        inside = y * (x @ w) < 1
        rows, weighted = x[inside], (x * cost[:, None])[inside]
        step = np.linalg.solve(weighted.T @ rows + np.eye(len(w)), weighted.T @ y[inside]) - w
        size = 1.0
        while loss(w + size * step) > loss(w) and size > 1e-6:
            size /= 2
        w = w + size * step
        if np.linalg.norm(size * step) <= 1e-9 * (1 + np.linalg.norm(w)):
            break
    return w[:-1], bias_feature * w[-1]


def fit_ridge(x, y, penalty):
    """Ridge regression: the minimum of |x w + b - y|^2 + penalty * |w|^2.

    Args:
        x: features `(n, features)`. Without any the weights are 0.
        y: targets `(n, targets)`.
        penalty: lambda.

    Returns:
        Weights `(features, targets)` and constants `(targets,)`, float64.
    """
    if not len(x):
        return np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1])
    x, y = x.astype(np.float64), y.astype(np.float64)
    means, constants = x.mean(0), y.mean(0)
    x, y = x - means, y - constants
    if x.shape[0] < x.shape[1]:  # the smaller of two equal systems
        weights = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    else:
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return weights, constants - means @ weights
