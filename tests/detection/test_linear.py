"""SVMs and ridge regression have the minima of their losses."""

import numpy as np
import scipy.optimize

from kvision.detection._linear import MinedSVM, fit_ridge, fit_svm


def test_svms_are_the_minimum_of_their_loss():
    random = np.random.default_rng(0)
    planted, x = random.normal(size=12), random.normal(size=(3000, 12))
    above = x @ planted + 0.7 > 0
    weights, bias = fit_svm(x[above], x[~above], 1e-2, positive_weight=2, bias_feature=10)
    y, cost = np.where(above, 1, -1), 1e-2 * np.where(above, 2, 1)
    x = np.pad(x, ((0, 0), (0, 1)), constant_values=10.0)

    def loss(w):
        hinges = np.maximum(1 - y * (x @ w), 0)
        return w @ w / 2 + cost @ hinges**2, w - 2 * x.T @ (cost * y * hinges)

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    expected = scipy.optimize.minimize(loss, np.zeros(13), jac=True, method="L-BFGS-B", options=options).x
    np.testing.assert_allclose([*weights, bias / 10], expected, atol=1e-6)


def test_mined_negatives_give_the_svm_of_all():
    random = np.random.default_rng(0)
    x = 5 * random.normal(size=(20_000, 12))
    above = x @ random.normal(size=12) > 20
    mined = MinedSVM(x[above])
    for part in np.array_split(x[~above], 100):
        mined.add(part)
    mined.fit()
    assert len(mined.negatives) < 0.6 * np.sum(~above)
    weights, bias = fit_svm(x[above], x[~above], 1e-3, positive_weight=2, bias_feature=10)
    np.testing.assert_allclose([*mined.weights, mined.bias], [*weights, bias], rtol=0.02, atol=0.02)


def test_ridge_regression_finds_planted_weights():
    random = np.random.default_rng(0)
    planted, constants = random.normal(size=(30, 4)), np.arange(4.0)
    x = random.normal(size=(400, 30))
    weights, found = fit_ridge(x, x @ planted + constants, 1e-6)
    np.testing.assert_allclose(weights, planted, atol=1e-6)
    np.testing.assert_allclose(found, constants, atol=1e-6)
    wide = random.normal(size=(20, 50))  # more features than rows: the other system, the same minimum
    weights, found = fit_ridge(wide, wide[:, :2], 3.0)
    centred = wide - wide.mean(0)
    np.testing.assert_allclose(centred.T @ (wide @ weights + found - wide[:, :2]) + 3 * weights, 0, atol=1e-8)
