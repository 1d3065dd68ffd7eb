"""Video: one class a clip."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from kvision import networks, visualize
from kvision.data.images import fit
from kvision.tasks.classification import Classification

SHOWN = 4  # frames of a clip in a picture


@dataclass(frozen=True, kw_only=True)
class Video(Classification):
    """Logits `(batch, classes)` of clips `(batch, frames, height, width, channels)`, and the target `"label"`.

    Attributes:
        length: number of frames that the network takes.
    """

    name: ClassVar = "video"
    target: ClassVar = "clip"
    targets: ClassVar = "clips"
    input_rank: ClassVar = 5

    length: int = dataclasses.field(default=0, metadata={"of_model": True})

    def network_keywords(self, variant, source, image_shape, length):
        """See `Task.network_keywords`."""
        return super().network_keywords(variant, source, image_shape, length) | ({"frames": length} if length else {})

    def fitted(self, model):
        """See `Task.fitted`."""
        return dataclasses.replace(self, length=networks.image_of(model).shape[1])

    @property
    def loading(self):
        """See `Task.loading`."""
        return {"target": self.target, "length": self.length}

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: each frame of a clip `(frames, height, width, channels)`."""
        return ops.stack([fit(frame, size, crop=crop, interpolation=interpolation) for frame in image])

    def preview(self, model, batch):
        """See `Task.preview`: some frames side by side, with the class."""
        return [
            (visualize.strip(clip, SHOWN), self.caption(label))
            for clip, label in zip(batch["image"], batch["label"], strict=True)
        ]
