"""Files of weights: downloading, checking and reading them. No pickle is executed."""

import contextlib
import hashlib
import inspect
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import huggingface_hub
import keras
import numpy as np
import safetensors.numpy
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from kvision.errors import UserError
from kvision.spec import Preprocess, Weights
from kvision.weights._h5 import read_h5
from kvision.weights._pth import read_pth
from kvision.weights._rows import ROWS

LOG = logging.getLogger("kvision")
HUB, KERAS, URL = "hf-hub:", "keras:", "https://"
SCHEMES = (HUB, KERAS, URL)
INDEX = (".safetensors.index.json", ".bin.index.json")
KERAS_FILES = (".weights.h5", ".keras")
ENDINGS = (".safetensors", *KERAS_FILES, ".pth", ".pt", ".bin", ".ckpt", ".pth.tar", *INDEX)
OF_PYTHON = (  # whose sentences are on the reader, not on the file
    AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, UnicodeDecodeError,
    ValueError,
)  # fmt: skip
FILES = ("model.safetensors", "pytorch_model.bin")  # of a repository, the better first


def describe(source: str, model: str | None) -> Weights:
    """A row for a repository of the hub that is not in the table, from its config.json.

    Raises:
        OSError: it cannot be downloaded.
        ValueError: the repository does not have timm's form.
    """
    if not source.startswith(HUB):
        raise UserError(
            f"`weights`: {source!r} is not a published checkpoint of {model or 'this network'}, so its "
            "normalisation is not known: build with `preprocess`, then call `kvision.weights.load`."
        )
    path = _from_hub(source, "config.json")
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UserError(f"an object was expected; got {config!r:.80}")
        config |= config.get("pretrained_cfg", {})
        size, crop = config["input_size"][-1], config.get("crop_pct", 1.0)
        test_size = (config.get("test_input_size") or [size])[-1]
        test_crop = config.get("test_crop_pct") or crop
        architecture = f"{HUB}timm/{config['architecture']}."
        published = next((row for row in ROWS if row.source.startswith(architecture)), None)
        if published and model and published.model != model:
            raise UserError(f"it is a {published.model}, not a {model}")
        return Weights(
            model or config["architecture"], source.rpartition("/")[2], source, config.get("license"),
            Preprocess(*(tuple(255 * value for value in config[key]) for key in ("mean", "std"))),
            config["num_classes"], size, test_size, crop, test_crop,
            config.get("interpolation", "bilinear"), None, None, published.columns if published else None,
        )  # fmt: skip
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        fault = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise UserError(f"`weights`: {source}: its config.json does not fit: {fault}.") from None


def named(source) -> str:
    """The name of a source: its path or its address."""
    return os.fsdecode(source) if isinstance(source, (bytes, os.PathLike)) else str(source)


def is_file(source) -> bool:
    """Whether a source is the path of a file that `read` reads, by its name."""
    name = named(source).lower()
    return name.endswith(ENDINGS) and not name.startswith(SCHEMES)


def local(source: str) -> str:
    """The path of the file behind a source; downloads it where it is not there, and checks it.

    Raises:
        OSError: it cannot be downloaded, or is damaged again after a second download.
        FileNotFoundError: there is no such file.
        ValueError: it names neither a file that `read` reads, nor a repository or URL.
    """
    if not source.startswith(SCHEMES) and not is_file(source):
        raise UserError(
            f"Weights must be a mapping, {HUB}OWNER/REPOSITORY, {KERAS}APPLICATION, a URL or the path of a "
            f"{', '.join(ENDINGS)} file; got {source!r}."
        )
    if source.startswith(HUB):
        return str(_checked_from_hub(source))
    if source.startswith(URL):
        return str(_from_url(source))
    path = os.path.expanduser(source)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`weights`: there is no file {path!r}.")
    return path


def read(path: str) -> Mapping:
    """The tensors of a file by name, PyTorch's or Keras' as `read_h5` gives them, or dicts of them.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors.
    """
    name = path.lower()
    if name.endswith(INDEX):
        return _read_shards(path)
    try:
        if name.endswith(KERAS_FILES):
            return read_h5(path)
        return _read_safetensors(path) if name.endswith(".safetensors") else read_pth(path)
    except Exception as error:
        raise unreadable(repr(path), error) from None


def unreadable(origin, error) -> UserError:
    """The UserError for an exception that a damaged file makes its reader raise."""
    if isinstance(error, UserError) and str(error).startswith("`weights`: "):
        return error
    if type(error) in OF_PYTHON:
        reason = f"it is damaged ({type(error).__name__} while it was read)"
    else:
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
    return UserError(f"`weights`: failed to read {origin}: {shown(reason, 300)}.")


def shown(text: str, length: int = 80) -> str:
    """A text that a file brings, as a terminal may have it: without control characters, and not long."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (AttributeError, KeyError) as error:
        kind = str(error).rpartition(" ")[2].strip("'")
        raise UserError(f"it holds tensors of a type that NumPy does not know: {kind}") from None


def _read_shards(path: str) -> dict[str, np.ndarray]:
    """The tensors of several files, by an index as transformers and diffusers write it."""
    try:
        places = _places(path)
    except Exception as error:
        raise unreadable(repr(path), error) from None
    shards = {}
    for shard in set(places.values()):
        beside = str(Path(path).with_name(shard))
        if not os.path.isfile(beside):
            raise UserError(f"`weights`: there is no file {beside!r}, which {path!r} lists.")
        shards[shard] = read(beside)
    if lacking := next((name for name, shard in places.items() if name not in shards[shard]), None):
        raise unreadable(repr(path), f"{places[lacking]!r} lacks the tensor {lacking!r} of its index")
    return {name: shards[shard][name] for name, shard in places.items()}


def _places(path: str) -> dict[str, str]:
    """The file of each tensor of an index, below the index's own folder."""
    index = json.loads(Path(path).read_text(encoding="utf-8"))
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise UserError("'weight_map', the name of a file for each tensor, was expected in it")
    for shard in places.values():
        named = isinstance(shard, str) and Path(shard).name == shard
        if not named or not shard.endswith((".safetensors", ".bin")):
            raise UserError(f"its index names {shard!r:.80}, which is not a file beside it")
    return places


def application(source: str, width_multiplier: float = 1.0) -> keras.Model:
    """The network of keras.applications that `keras:NAME` names, with its ImageNet weights."""
    name = source.removeprefix(KERAS)
    if not inspect.isfunction(getattr(keras.applications, name, None)):
        raise UserError(f"`weights`: keras.applications has no network {name!r}.")
    keywords = {"alpha": width_multiplier} if name.startswith("MobileNet") else {}
    try:
        return getattr(keras.applications, name)(weights="imagenet", **keywords)
    except Exception as error:
        raise OSError(
            f"`weights`: {source} cannot be downloaded: {shown(str(error), 300)}. Keras' cache is the folder "
            "models in KERAS_HOME or else in ~/.keras: without a connection the file must be there, and a "
            "damaged one must be deleted."
        ) from None


def _from_hub(source: str, name: str) -> Path:
    repository = source.removeprefix(HUB)
    if not re.fullmatch(r"[^/]+/[^/]+", repository):
        raise UserError(f"`weights`: {HUB}OWNER/REPOSITORY was expected; got {source!r}.")
    try:
        with _quiet_hub():
            return Path(huggingface_hub.hf_hub_download(repository, name))
    except LocalEntryNotFoundError as error:
        reason, cause = "the hub cannot be reached, and it is not in the local cache.", error
    except Exception as error:  # of the client, of its connection, of the disk
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason, cause = lines[0] if lines else repr(error), error
    raise OSError(f"`weights`: {source}: {name} cannot be downloaded: {reason}") from cause


@contextlib.contextmanager
def _quiet_hub():
    """Replaces the lines of the hub's client, of which each new attempt to connect is one, by one line."""
    logger = huggingface_hub.logging.get_logger("huggingface_hub")  # with the handler that it then has
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Retries()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate


class _Retries(logging.Handler):
    """Says once that the hub does not answer, which its client tries for about half a minute."""

    said = False

    def emit(self, record):
        if "Retrying" in record.getMessage() and not self.said:
            self.said = True
            LOG.warning("The hub cannot be reached; trying again for about half a minute.")


def _checked_from_hub(source: str) -> Path:
    """The hub's client takes a file of the right size for the right file; the SHA-256 is what decides."""
    name = FILES[0]
    try:
        _from_hub(source, name)
    except OSError as error:
        cause = error.__cause__
        if not isinstance(cause, EntryNotFoundError) or isinstance(cause, LocalEntryNotFoundError):
            raise  # it is not known what the repository has
        name = FILES[1]
        try:
            _from_hub(source, name)
        except OSError:
            raise error from None
    return _whole(source, lambda: _from_hub(source, name), lambda path: _expected_sha256(path, source, name))


def _whole(source: str, fetch: Callable[[], Path], expected: Callable[[Path], str]) -> Path:
    """A file whose SHA-256 begins as expected; one that is damaged is deleted and fetched once more."""
    for _ in range(2):
        path = fetch()
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest().startswith(expected(path)):
                return path
        path.resolve().unlink()
        path.unlink(missing_ok=True)  # the cache's link to it
    raise OSError(f"`weights`: {source} was damaged on its way twice: its SHA-256 is wrong.")


def _expected_sha256(path: Path, source: str, name: str) -> str:
    """A file's SHA-256 by the hub: its name in the cache, or else what the hub says now; "" for neither."""
    digest = path.resolve().name
    if not re.fullmatch("[0-9a-f]{64}", digest):  # a cache without links
        try:
            url = huggingface_hub.hf_hub_url(source.removeprefix(HUB), name)
            with _quiet_hub():
                digest = huggingface_hub.get_hf_file_metadata(url).etag or ""
        except Exception:  # offline
            return ""
    return digest if re.fullmatch("[0-9a-f]{64}", digest) else ""


def _from_url(url: str) -> Path:
    """A file of the table, or one whose name ends with the first digits of its SHA-256, as torchvision's."""
    name = url.rpartition("/")[2]
    digits = re.search(r"-([0-9a-f]{8,64})\.pth$", name)
    if not digits and url not in {row.source for row in ROWS}:
        raise UserError(f"`weights`: the name of {url!r} does not say its SHA-256.")

    def fetch():
        try:
            return Path(keras.utils.get_file(name, url, cache_subdir="kvision"))
        except Exception as error:
            raise OSError(f"`weights`: {url} cannot be downloaded: {error}") from None

    return _whole(url, fetch, lambda _: digits[1] if digits else "")
