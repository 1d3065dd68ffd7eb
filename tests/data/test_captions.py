"""Captions: COCO's files and CSV lists, their numbers, and sentences about drawn pictures."""

import json
from zipfile import ZipFile

import numpy as np
import pytest
from helpers import write_images
from masks import read

from kvision.data import load
from kvision.data.sources import absolute, open_source
from kvision.data.sources.two_shapes import COLOURS, COUNTS, draw
from kvision.errors import UserError
from kvision.labels import add_to_keras, read_from_keras
from kvision.vocabulary import SPECIAL, Vocabulary, words_of

CAPTIONS = {
    "a": ["A cat.", "The cat sits, on a mat"],
    "b": ["A dog on a mat."],
    "c": ["A cat on a dog", "a dog", "Two dogs!"],
    "d": ["The mat", "A mat."],
}
HOW = {"image_size": (9, 9), "target": "tokens"}


def coco(names="abcd", **changes):
    """The content of a file of COCO's captions, as captions_val2017.json is laid out."""
    ids = {name: 100 - place for place, name in enumerate("abcd")}
    images = [
        {
            "license": 3, "file_name": f"{name}.png", "coco_url": "", "height": 9, "width": 9,
            "date_captured": "2013-11-14 11:18:45", "flickr_url": "", "id": ids[name],
        }
        for name in names
    ]  # fmt: skip
    annotations = [
        {"image_id": ids[name], "id": 10 * ids[name] + place, "caption": text}
        for place in range(3)
        for name in names
        for text in CAPTIONS[name][place : place + 1]
    ]
    parts = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    return json.dumps(parts | changes)


@pytest.fixture
def root(tmp_path):
    """Images whose pixels are their places, with captions of both kinds."""
    write_images(tmp_path, *(f"images/{name}.png" for name in "abcd"))
    (tmp_path / "all.json").write_text(coco())
    rows = [f'images/{name}.png,"{text}"' for name, texts in CAPTIONS.items() for text in texts]
    (tmp_path / "all.csv").write_text("path,text\n" + "\n".join(rows) + "\n")
    sets = {"a": "train", "b": "TRAIN", "c": "val", "d": "train"}
    rows = [f'"{text}",{sets[name]},images/{name}.png' for name, texts in CAPTIONS.items() for text in texts]
    (tmp_path / "sets.csv").write_text("text,set,path\n" + "\n".join(rows) + "\n")
    return tmp_path


def texts_of(vocabulary, rows):
    return [vocabulary.decode(row) for row in rows]


def plain(name):
    return [" ".join(words_of(text)) for text in CAPTIONS[name]]


@pytest.mark.parametrize("form", ["all.json,images", "all.csv"])
def test_an_image_has_all_its_captions(root, form, monkeypatch):
    monkeypatch.chdir(root)
    assert absolute(f"captions:{form}") == "captions:" + ",".join(
        f"{root}/{part}" for part in form.split(",")
    )
    data = load(f"captions:{form}", "all", length=7, batch_size=3, **HOW)
    assert data.size == 4
    assert data.class_names[:4] == SPECIAL
    batches = read(data)
    assert [len(batch["image"]) for batch in batches] == [3, 1]
    batch = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    assert batch.keys() == {"image", "tokens", "references", "weight"}
    assert batch["image"].mean((1, 2, 3)).tolist() == [0, 1, 2, 3]
    assert batch["tokens"].shape == (4, 8)
    assert batch["references"].shape == (4, 3, 7)
    assert batch["tokens"].dtype == batch["references"].dtype == np.int32
    train = open_source(f"captions:{form}", "train", target="tokens")  # whose words are the vocabulary
    [apart] = {*"abcd"} - {name[-5] for name in train.files.paths}
    for place, name in enumerate("abcd"):
        references = [*filter(None, texts_of(Vocabulary(data.class_names), batch["references"][place]))]
        assert texts_of(Vocabulary(data.class_names), batch["tokens"][place : place + 1]) == references[:1]
        if name != apart:
            assert references == plain(name)
        assert len(references) == len(CAPTIONS[name])


def test_each_caption_is_an_example_of_training(root):
    data = load(f"captions:{root}/all.csv", "all", length=6, batch_size=8, training=True, **HOW)
    assert data.size == 8
    batches = data.dataset.as_numpy_iterator()
    vocabulary = Vocabulary(data.class_names)
    expected = sorted((place, text) for place, name in enumerate("abcd") for text in plain(name))
    orders = []
    for _ in range(2):
        batch = next(batches)
        assert batch.keys() == {"image", "tokens", "weight"}
        orders.append([(int(image.mean()), text) for image, text in zip(
            batch["image"], texts_of(vocabulary, batch["tokens"]), strict=True
        )])  # fmt: skip
        known = [pair for pair in orders[-1] if "<unknown>" not in pair[1]]
        assert {*known} <= {*expected}
        assert [place for place, _ in sorted(orders[-1])] == [place for place, _ in expected]
    assert orders[0] != orders[1]


def test_batches_follow_from_seed_and_position(root):
    def batches(count, start=0, shard=(0, 1), size=3):
        how = HOW | {"length": 5, "training": True, "augment": "crop_flip", "seed": 3}
        data = load(f"captions:{root}/all.csv", "all", batch_size=size, start=start, shard=shard, **how)
        return [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(count), strict=False)]

    whole = batches(6)
    for got, expected in zip(batches(2, start=12), whole[4:], strict=True):
        for name, part in expected.items():
            np.testing.assert_array_equal(got[name], part)
    for index in range(3):
        tokens = [batch["tokens"][0].tolist() for batch in batches(6, shard=(index, 3), size=1)]
        assert tokens == [batch["tokens"][index].tolist() for batch in whole]


def test_splits_and_the_vocabulary_of_the_training(root, capsys):
    splits = {
        split: open_source(f"captions:{root}/sets.csv", split, target="tokens") for split in ("train", "val")
    }
    assert [source.size for source in splits.values()] == [3, 1]
    assert splits["val"].class_names == splits["train"].class_names
    counts = {"a": 5, "mat": 4, "cat": 2, "on": 2, "the": 2, "dog": 1, "sits": 1}
    assert splits["val"].class_names == (*SPECIAL, *counts)
    fewer = open_source(f"captions:{root}/sets.csv", "val", target="tokens", min_word_count=2, max_words=3)
    assert fewer.class_names == (*SPECIAL, "a", "mat", "cat")
    [batch] = read(load(splits["val"], "val", length=4, **HOW))
    assert capsys.readouterr().err.splitlines() == [
        "2 of 6 words are not in the vocabulary: 'two', 'dogs'.",
        "Cut 1 of 3 captions behind 4 words; the longest has 5.",
    ]
    number = splits["val"].class_names.index
    assert batch["references"][0].tolist() == [
        [number("a"), number("cat"), number("on"), number("a")],
        [number("a"), number("dog"), 0, 0],
        [len(SPECIAL) + 7, len(SPECIAL) + 8, 0, 0],
    ]
    identities = [source.identity for source in splits.values()]
    (root / "sets.csv").write_text((root / "sets.csv").read_text().replace("Two dogs", "2 dogs"))
    again = [open_source(f"captions:{root}/sets.csv", split, target="tokens").identity for split in splits]
    assert identities[0] == again[0]
    assert identities[1].changes(again[1])


def test_a_network_brings_its_vocabulary(root, tmp_path, capsys):
    names = (*SPECIAL, "mat", "the")
    ZipFile(tmp_path / "model.keras", "w").close()
    add_to_keras(tmp_path / "model.keras", names)
    assert read_from_keras(tmp_path / "model.keras") == names
    source = open_source(f"captions:{root}/sets.csv", "train", target="tokens").with_classes(names, ())
    data = load(source, "train", length=3, **HOW)
    assert data.class_names == names
    [batch] = read(data)
    # images a, b and d; unknown words have numbers in the order in which they come
    assert batch["tokens"].tolist() == [[1, 3, 3, 2], [1, 3, 3, 3], [1, 5, 4, 2]]
    assert batch["references"].tolist() == [
        [[6, 7, 0], [5, 7, 8]],
        [[6, 9, 10], [0, 0, 0]],
        [[5, 4, 0], [6, 4, 0]],
    ]
    assert (
        "5 of 7 words are not in the vocabulary: 'a', 'cat', 'sits', 'on', 'dog'." in capsys.readouterr().err
    )
    with pytest.raises(UserError, match="A vocabulary begins with"):
        source.with_classes(("cat", "dog"), (0, 1))


def test_coco_in_a_folder(root, capsys):
    (root / "annotations").mkdir()
    for split, names in (("train", "abd"), ("val", "c")):
        write_images(root, *(f"{split}2017/{name}.png" for name in names))
        (root / "annotations" / f"captions_{split}2017.json").write_text(coco(names))
    sources = [open_source(f"captions:{root}", split, target="tokens") for split in ("train", "val", "all")]
    assert [source.size for source in sources] == [3, 1, 4]
    assert len({source.class_names for source in sources}) == 1
    silent = json.loads(coco())
    silent["annotations"] = [item for item in silent["annotations"] if item["image_id"] != 99]
    (root / "all.json").write_text(json.dumps(silent))
    assert open_source(f"captions:{root}/all.json,{root}/images", "all", target="tokens").size == 3
    assert "Left out 1 image of" in capsys.readouterr().err
    # images alone, for a network of another task or to be described
    source = open_source(f"captions:{root}", "val", target="label", labeled=False)
    [batch] = read(load(source, "val", image_size=(9, 9)))
    assert batch.keys() == {"image", "label", "weight"}
    [batch] = read(
        load(open_source(f"captions:{root}", "val", labeled=False, target="tokens"), "val", length=3, **HOW)
    )
    assert "tokens" not in batch


def test_damaged_images_are_skipped_with_all_their_captions(root):
    (root / "images" / "c.png").write_bytes(b"damaged")
    how = HOW | {"length": 5, "max_unreadable": 0.5}
    data = load(f"captions:{root}/all.csv", "all", **how)
    [batch] = read(data)
    assert batch["image"].mean((1, 2, 3)).tolist() == [0, 1, 3]
    assert [*data.unreadable] == [str(root / "images" / "c.png")]
    data = load(f"captions:{root}/all.csv", "all", batch_size=8, training=True, **how)
    assert 2 not in next(data.dataset.as_numpy_iterator())["image"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "lists no images for the split 'all'"),
        ("x.csv", "image,caption\na,b", "must have the columns 'path', 'text', each once; its first line is"),
        ("x.csv", "path,text\nimages/a.png,a cat, here", "row 2: 2 fields were expected; got 3: .* marks"),
        ("x.csv", "path,text\nimages/a.png,!!", "row 2: a path and a text with words were expected; got"),
        ("x.csv", "path,text,set\nimages/a.png,a,dev", "row 2: the set must be train, val or test; got"),
        (
            "x.csv",
            "path,text,set\nimages/a.png,a,val\n./images/a.png,a,train",
            "row 3: './images/a.png' is in the sets 'val' and 'train'.",
        ),
        ("x.csv", "path,text\n/etc/a.png,a", "row 2: a path below the file's folder was expected"),
        ("x.csv", "path,text\nimages/z.png,a\nimages/a.png,b", "1 of the . images that .* not there; .*z.p"),
        ("x.json,images", "{", "is not JSON"),
        ("x.json,images", '{"images": []}', "must have the lists .*, as COCO's captions have; got"),
        ("x.json,images", coco(images=[{"id": 1}]), "images, entry 1: an 'id' and a 'file_name'.*; got id 1"),
        (
            "x.json,images",
            coco(annotations=[{"image_id": 7, "caption": "a"}]),
            "annotations, entry 1: an 'image_id' of the images and a 'caption' .*; got image_id 7",
        ),
    ],
)  # fmt: skip
def test_files_that_are_wrong(root, name, text, message):
    (root / name.split(",")[0]).write_text(text)
    path = ",".join(f"{root}/{part}" for part in name.split(","))
    with pytest.raises(UserError, match=message):
        open_source(f"captions:{path}", "all", target="tokens")


def test_lengths_and_targets_that_are_wrong(root):
    data = f"captions:{root}/all.csv"
    with pytest.raises(
        UserError, match="`length` of 'tokens' must be a number of tokens, 1 or more; got None."
    ):
        load(data, "all", **HOW)
    with pytest.raises(UserError, match="`image_size` of 'tokens' must be a height and a width; got None."):
        load(data, "all", target="tokens", length=3)
    with pytest.raises(UserError, match="gives captions and no masks"):
        open_source(data, "all", target="mask")
    with pytest.raises(
        UserError, match="'digits' gives labels and no captions: shapes or captions:PATH was expected"
    ):
        open_source("digits", "all", target="tokens")
    with pytest.raises(UserError, match="Did you mean 'captions:.*all.csv'"):
        open_source(f"{root}/all.csv", "all", target="tokens")
    with pytest.raises(
        UserError, match="`min_word_count` and `max_words` must be 1 or more; got 0 and None."
    ):
        open_source(data, "all", target="tokens", min_word_count=0)


def test_sentences_about_drawn_pictures_are_true():
    """Colours are found in the pixels: on which side is which, and which covers more."""
    for index in range(60):
        image, text = draw(1, index)
        words = text.split()
        colours = [words[1], words[-2]]
        near = [np.abs(image - np.array(COLOURS[colour], float)).max(-1) < 45 for colour in colours]
        rows, columns = np.mgrid[:64, :64]
        down, across = ([float(np.median(axis[mask])) for mask in near] for axis in (rows, columns))
        relation = " ".join(words[3:-3])
        true = {
            "above": down[0] < down[1],
            "below": down[0] > down[1],
            "left of": across[0] < across[1],
            "right of": across[0] > across[1],
        }
        assert true[relation], (index, text)
        assert words[0] == words[-3] == "a"
        assert colours[0] != colours[1]


def test_drawn_pictures():
    data = load("shapes", "val", length=10, batch_size=300, image_size=(64, 64), target="tokens")
    [batch] = read(data)
    assert batch["image"].shape == (300, 64, 64, 3)
    np.testing.assert_array_equal(batch["image"][5], draw(1, 5)[0])
    vocabulary = Vocabulary(data.class_names)
    assert (
        vocabulary.decode(batch["tokens"][5]) == vocabulary.decode(batch["references"][5, 0]) == draw(1, 5)[1]
    )
    train = open_source("shapes", "train", target="tokens")
    assert train.size == COUNTS["train"]
    assert train.class_names == data.class_names
    assert len(data.class_names) == len(SPECIAL) + len(["a", "of", "left", "right", "above", "below"]) + 4 + 3
    relations = [" ".join(texts[0].split()[3:-3]) for texts in train.captions.texts]
    assert all(
        600 < relations.count(relation) < 900 for relation in ("above", "below", "left of", "right of")
    )
