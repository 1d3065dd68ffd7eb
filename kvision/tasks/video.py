"""Video: one class a clip."""

import dataclasses
import os
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from kvision import networks, sequence, visualize
from kvision.data.clips import Damaged, chosen, clips_in, is_film, read_frames
from kvision.data.images import fit
from kvision.errors import UserError
from kvision.tasks.classification import Classification

SHOWN = 4  # frames of a clip in a picture


@dataclass(frozen=True, kw_only=True)
class Video(Classification):
    """Logits `(batch, classes)` of clips `(batch, frames, height, width, channels)`, and a target `"label"`.

    Attributes:
        length: number of frames that the network takes.
    """

    name: ClassVar = "video"
    target: ClassVar = "clip"
    targets: ClassVar = "clips"
    input_rank: ClassVar = 5
    kind: ClassVar = "clip"
    refused: ClassVar = ("cache",)

    ways: ClassVar = ("streaming",)
    tensors: ClassVar = {
        "probabilities": "Probabilities of the classes of the clip so far: the mean of those of its frames.",
        "total": "Sum of the frames' probabilities, a part of the state, zeros in front of the first frame.",
        "count": "Number of frames so far, a part of the state, 0 in front of the first frame.",
    }

    length: int = dataclasses.field(default=0, metadata={"of_model": True})

    def network_keywords(self, variant, source, image_shape, length):
        """See `Task.network_keywords`."""
        frames = {"frames": length} if length else {}
        return super().network_keywords(variant, source, image_shape, length) | frames

    def fitted(self, model):
        """See `Task.fitted`."""
        return dataclasses.replace(self, length=networks.image_of(model).shape[1])

    @classmethod
    def signatures(cls, model, way=""):
        """See `Exported.signatures`: "step" takes one frame after the other."""
        return {"step": sequence.streamer(model)} if way else super().signatures(model)

    @property
    def loading(self):
        """See `Task.loading`."""
        return {"target": self.target, "length": self.length}

    def items(self, paths):
        """See `Task.items`: films, and folders of frames."""
        clips = clips_in(paths)
        return [(clip[0] if is_film(clip[0]) else os.path.dirname(clip[0]), clip) for clip in clips]

    def read(self, item, channels, exif):
        """See `Task.read`: the frames that the network takes, uint8 `(frames, height, width, channels)`."""
        try:
            return np.stack([*read_frames(item, partial(chosen, length=self.length), channels, exif)])
        except Damaged as error:
            raise UserError(f"{item[0]!r} failed to decode: {error}.") from None

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: each frame of a clip `(frames, height, width, channels)`."""
        return np.stack([fit(frame, size, crop=crop, interpolation=interpolation) for frame in image])

    def truths(self, batch):
        """See `Exported.truths`."""
        return batch["label"]

    def shown(self, example):
        """See `Exported.shown`: some frames side by side."""
        return visualize.strip(example, SHOWN)
