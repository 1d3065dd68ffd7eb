"""Files with signatures that are called more than once for an example: word by word, or frame by frame."""

import abc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kvision.vocabulary import END, PADDING, START
from kvision_export import runner


class Player(abc.ABC):
    """A file that is fed an example, and is played to its end, as an interpreter is invoked.

    Args:
        content: the file.
        threads, pixels: see `runner.open_file`.
        length: most words of a caption.

    Attributes:
        answer: to the example, once `invoke` returned.
    """

    def __init__(self, content: bytes | Path, threads: int, pixels: bool = True, length: int = 0):
        interpreter = runner.allocated(content, threads)
        names = interpreter.get_signature_list()
        self.signatures = {name: interpreter.get_signature_runner(name) for name in names}
        self.pixels, self.length = pixels, length
        self.example: Any = None
        self.answer = np.zeros(0)

    def feed(self, example: np.ndarray) -> None:
        """Takes an example: an image, or a clip."""
        self.example = example

    def invoke(self) -> None:
        """Plays the example to its end."""
        self.answer = self.play()

    @abc.abstractmethod
    def play(self) -> np.ndarray:
        """The answer to the example."""

    def input(self, signature: str, name: str, values: np.ndarray) -> np.ndarray:
        """Pixels as a signature takes them."""
        details = self.signatures[signature].get_input_details()[name]
        return runner.as_input(values, details, self.pixels)


class WordByWord(Player):
    """A captioner: "encode" sees the image, and "step" gives the next word, the likeliest one."""

    def play(self):
        state = self.signatures["encode"](image=self.input("encode", "image", self.example))
        token, tokens = START, np.full(self.length, PADDING, np.int32)
        for place in range(self.length):
            state = self.signatures["step"](token=np.array([token], np.int32), **state)
            logits = state.pop("logits")[0]
            logits[[PADDING, START]] = -np.inf
            token = tokens[place] = int(logits.argmax())
            if token == END:
                break
        return tokens


class OneShot(Player):
    """A captioner that finds all words by itself."""

    def play(self):
        return self.signatures["caption"](image=self.input("caption", "image", self.example))["tokens"][0]


class FrameByFrame(Player):
    """A classifier of clips that sees one frame after the other; its answer is that after the last one."""

    def play(self):
        step = self.signatures["step"]
        details = step.get_input_details()
        state = {name: np.zeros(of["shape"], of["dtype"]) for name, of in details.items() if name != "frame"}
        answer = np.zeros(0)
        for frame in self.example:
            state = step(frame=self.input("step", "frame", frame), **state)
            answer = state.pop("probabilities")[0]
        return answer


PLAYERS = {  # by the signatures of a file
    ("encode", "step"): WordByWord,
    ("caption",): OneShot,
    ("step",): FrameByFrame,
}


def answers(player: Player, examples: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The answers to examples, one after the other."""
    for example in examples:
        player.feed(example)
        player.invoke()
        yield player.answer
