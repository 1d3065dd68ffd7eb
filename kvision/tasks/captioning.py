"""Captioning: a sentence about an image."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kvision import bleu, networks, sequence, visualize
from kvision.data.images import fit
from kvision.layers import DecoderBlock
from kvision.tasks.captions import Captions
from kvision.tasks.task import Accuracy, Exported, Score
from kvision.vocabulary import END, PADDING, SPECIAL, START, UNKNOWN, Vocabulary

BEAM = 3  # sentences that are followed at once, as in Show and Tell's released code


@dataclass(frozen=True, kw_only=True)
class Captioning(Exported):
    """Logits `(batch, length, words)` of the next word at each place, and the target `"tokens"`.

    "tokens", integers `(batch, length + 1)`, are a start, the words, an end and padding. In training the
    network is given the true words before each place; elsewhere those that it gave itself, see
    `kvision.sequence.beam`. The class names are the vocabulary.

    Attributes:
        label_smoothing: share of a word that is spread over all words in training, in [0, 1).
        length: number of words, with the end.
        attends: whether the network looks at parts of the image, see `kvision.sequence.attention`.
        beam: number of sentences that are followed at once; 1 for the likeliest next word at each place.
    """

    name: ClassVar = "captioning"
    target: ClassVar = "tokens"
    targets: ClassVar = "captions"
    rank: ClassVar = 3
    building: ClassVar = {}
    opening: ClassVar = ("min_word_count", "max_words")
    fewest_classes: ClassVar = 5  # the four that mean no word, and one
    monitor: ClassVar = "accuracy"
    score: ClassVar = "BLEU-4"
    answers: ClassVar = Captions
    output: ClassVar = "captions"
    agreement: ClassVar = "{share} of its captions for {images} are the Keras model's"
    ways: ClassVar = ("one_shot",)
    tensors: ClassVar = {
        "token": f"Number of the word before, int32, {START} in front of the first one.",
        "logits": f"Logits of the next word, of which {PADDING} and {START} are none; {END} ends the caption.",
        "tokens": f"Numbers of the words, {END} behind the last one and {PADDING} behind that.",
    }

    label_smoothing: float = 0.0
    length: int = dataclasses.field(default=0, metadata={"of_model": True})
    attends: bool = dataclasses.field(default=False, metadata={"of_model": True})
    beam: int = dataclasses.field(default=BEAM, metadata={"of_answers": True})

    @classmethod
    def fits(cls, model):
        """See `Task.fits`."""
        return {*networks.given(model)} == {"image", "tokens"}

    def network_keywords(self, variant, source, image_shape, length):
        """See `Task.network_keywords`."""
        words = {"length": length} if length else {}
        return super().network_keywords(variant, source, image_shape, length) | words

    def examples(self, source):
        """See `Task.examples`: each caption is one."""
        assert source.captions is not None
        return len(source.captions.owners)

    def fitted(self, model):
        """See `Task.fitted`."""
        attends = any(isinstance(layer, DecoderBlock) for layer in model.layers)
        return dataclasses.replace(self, length=networks.given(model)["tokens"].shape[1], attends=attends)

    @property
    def draws(self):
        """See `Task.draws`."""
        return self.attends

    @property
    def vocabulary(self) -> Vocabulary:
        """The words, of which the class names are the list."""
        return Vocabulary(self.class_names)

    @property
    def loading(self):
        """See `Task.loading`."""
        return {"target": self.target, "length": self.length}

    @classmethod
    def serving(cls, model):
        """See `Task.serving`: the network itself, which `answer` asks for one word after the other."""
        return model

    @classmethod
    def exported(cls, model):
        """See `Exported.exported`: the network itself, whose greedy captions are compared."""
        return model

    @property
    def about(self):
        """See `Exported.about`."""
        return f"Captions are of at most {self.length} words, with the end."

    @classmethod
    def signatures(cls, model, way=""):
        """See `Exported.signatures`: "encode" and "step", or "caption", which finds all words by itself."""
        if way:
            return {"caption": sequence.one_shot(model)}
        return {"encode": sequence.encoder(model), "step": sequence.stepper(model)}

    def inputs(self, batch):
        """See `Task.inputs`: the image and the words before each place."""
        return {"image": batch["image"], "tokens": batch["tokens"][:, :-1]}

    def losses(self, outputs, batch, training):
        """The mean cross-entropy of the words and the end."""
        words, there = self._words(batch)
        targets = ops.one_hot(words, outputs.shape[-1])
        smoothing = self.label_smoothing if training else 0.0
        losses = keras.losses.categorical_crossentropy(targets, outputs, True, smoothing)
        return {"loss": ops.sum(there * losses, -1) / ops.maximum(ops.sum(there, -1), 1)}

    def sums(self, outputs, batch):
        """How many words are the most probable ones, "right", and how many there are, "words"."""
        words, there = self._words(batch)
        there = there * batch["weight"][:, None]
        right = keras.metrics.sparse_categorical_accuracy(words, outputs)
        return {"right": ops.sum(there * ops.cast(right, "float32")), "words": ops.sum(there)}

    def metrics(self, sums):
        """The loss, and the "accuracy" of the next word, given the true ones before it."""
        means = super().metrics({name: sums[name] for name in sums if name not in ("right", "words")})
        return means | {"accuracy": float(sums["right"] / max(sums["words"], 1))}

    def ask(self, model, batch, drawn=False):
        """See `Task.ask`: "tokens", int32 `(batch, length)`; "attention", where it looked in "image"."""
        image = batch["image"]
        tokens = sequence.beam(model, image, self.beam, self.length)
        if not drawn:
            return {"tokens": tokens}
        return {"tokens": tokens, "attention": sequence.attention(model, image, tokens), "image": image}

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: as `kvision.data.images.fit`."""
        return fit(image, size, crop=crop, interpolation=interpolation)

    def restore(self, answer, shape, size):
        """The answer for an image, see `answer`."""
        return answer

    def judge(self, answers, batch):
        """The sums of BLEU, and the number of sentences that equal a caption of their image."""
        totals = {"images": np.sum(batch["weight"]), "exact": 0}
        for answer, references in zip(answers["tokens"], batch["references"], strict=True):
            own = _sentence(answer)
            others = [sentence for row in references if len(sentence := _sentence(row))]
            totals["exact"] += own in others
            for name, value in bleu.counts(own, others or [()]).items():
                totals[name] = totals.get(name, 0) + value
        return totals

    def figures(self, sums):
        """ "exact", the share of sentences that equal a caption of their image, and "bleu_1" to "bleu_4"."""
        scores = {f"bleu_{order}": score for order, score in enumerate(bleu.scores(sums), 1)}
        return {"exact": float(sums["exact"] / sums["images"]), **scores}

    def report(self, sums):
        """The share of exact sentences, and BLEU."""
        figures = self.figures(sums)
        scores = [f"{name.replace('bleu_', 'BLEU-')} {100 * value:.2f} %" for name, value in figures.items()]
        return ", ".join(scores).replace("exact", "exact match")

    def truths(self, batch):
        """See `Exported.truths`: the captions of each image."""
        return batch["references"]

    def compare(self, found, expected, targets):
        """BLEU-4, and the share of sentences that equal a caption of their image."""
        batch = {"references": targets, "weight": np.ones(len(targets))}
        own, others = (self.figures(self.judge({"tokens": of.tokens}, batch)) for of in (found, expected))
        scores = {"BLEU-4": Score(own["bleu_4"]), "exact match": Score(own["exact"])}
        return Accuracy(scores, drop=others["bleu_4"] - own["bleu_4"])

    def target_at(self, targets, image, size):
        """See `Exported.target_at`: the first of its captions."""
        return targets[image][0]

    def caption(self, answer, probabilities=None):
        """The sentence."""
        names = self.class_names
        return " ".join(names[word] if word < len(names) else SPECIAL[UNKNOWN] for word in _sentence(answer))

    def preview(self, model, batch):
        """See `Task.preview`: the images with their captions."""
        return [
            (visualize.picture(image), self.vocabulary.decode(tokens))
            for image, tokens in zip(batch["image"], batch["tokens"], strict=True)
        ]

    def describe(self, prediction, most):
        """The sentence."""
        return [self.vocabulary.decode(prediction["tokens"])]

    def pictures(self, image, prediction):
        """The image as the network sees it, once a word, bright where it looked for that."""
        words = self.vocabulary.decode(prediction["tokens"]).split()
        lit = (visualize.spotlight(prediction["image"], shares) for shares in prediction["attention"])
        return {"_attention.png": visualize.sheet([*zip(lit, words, strict=False)])} if words else {}

    def _words(self, batch):
        """The word at each place, `(batch, length)`, and 1 where there is one."""
        words = batch["tokens"][:, 1:]
        return words, ops.cast(words != PADDING, "float32")


def _sentence(numbers) -> tuple[int, ...]:
    """The words alone of a row of numbers, up to its end."""
    ends = (PADDING, START, END)
    first = next((place for place, number in enumerate(numbers) if number in ends), len(numbers))
    return tuple(int(number) for number in numbers[:first])
