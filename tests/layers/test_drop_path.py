import keras
import numpy as np

from kvision.layers import DropPath


def test_drops_whole_samples_and_keeps_the_mean():
    x = np.ones((4000, 3, 2), "float32")
    y = np.asarray(DropPath(0.25, seed=0)(x, training=True))
    per_sample = y.reshape(4000, -1)
    assert np.all(per_sample == per_sample[:, :1])
    assert set(np.unique(per_sample).round(4)) == {0.0, np.float32(4 / 3).round(4)}
    assert abs(y.mean() - 1) < 0.03


def test_identity_at_inference_and_serialisable():
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 2))
    layer = DropPath(0.5, name="d")
    np.testing.assert_array_equal(layer(x, training=False), x.astype("float32"))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(again, DropPath)
    assert (again.rate, again.name) == (0.5, "d")
