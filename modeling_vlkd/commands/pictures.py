"""The parts that `answer`, `caption` and `embed` share: arguments, loading the checkpoint, reading pictures."""

import argparse
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from PIL import Image
from tqdm import tqdm

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.evaluation.models import kind_of, load_vlkd, read_config
from modeling_vlkd.evaluation.picture_files import PICTURE_SUFFIXES
from modeling_vlkd.processing_vlkd import open_image


DEFAULT_CHECKPOINT = "vlkd-demo"
FEW = 16  # up to so many pictures there is no progress bar: they are done before anybody could read it


def add_common_arguments(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--checkpoint",
        default=DEFAULT_CHECKPOINT,
        help="folder or Hub id of a VLKD model (default: ./%(default)s, which `vlkd demo` leaves)",
    )
    parser.add_argument("--batch-size", type=positive, default=32, help="pictures at a time (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: an accelerator if there is one)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def add_generation_arguments(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--masks", type=positive, help="masks in the prompt; more for longer texts (default: the checkpoint's)"
    )
    parser.add_argument("--beams", type=positive, help="beams; 1 is greedy and fastest (default: the checkpoint's)")
    parser.add_argument(
        "--force-prefix",
        action=argparse.BooleanOptionalAction,
        help="begin each text with what the prompt says before its masks (default: as the checkpoint does better)",
    )


def generation_settings(args: argparse.Namespace) -> dict[str, int | bool]:
    """Return the generation settings that the user gave; the checkpoint's own apply for the others."""
    settings = {"num_beams": args.beams, "force_prefix": args.force_prefix}
    return {name: value for name, value in settings.items() if value is not None}


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def load_checkpoint(
    name: str, device: torch.device | str | None, dtype: torch.dtype | str = "auto"
) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
    """Load model and processor.

    Args:
        name: a folder or Hub id.
        device: defaults to an accelerator, or the CPU if there is none.
        dtype: type of the weights, by default that of the file. For training it has to be float32, because small
            updates are lost in bfloat16.

    Raises:
        ValueError: not a VLKD checkpoint, or an incomplete one.
        OSError: there is no such folder, or its configuration cannot be read.
    """
    if not os.path.exists(name) and (name == DEFAULT_CHECKPOINT or name.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"There is no checkpoint {name}; run `vlkd demo` to make one, or give --checkpoint.")
    kind = kind_of(read_config(name))
    if kind != "vlkd":
        raise ValueError(
            f"{name} holds a model of type {kind!r}, not 'vlkd'; `vlkd convert` makes one of a CLIP and a BART."
        )
    return load_vlkd(name, device, dtype)


def refuse_overlong(processor: VLKDProcessor, texts: Sequence[str], remedy: str):
    """Stop, before any picture is read, at a text that is longer than the model can read.

    Args:
        remedy: what the user can do, for the error message.

    Raises:
        ValueError: a text is too long.
    """
    if texts:
        processor.refuse_overlong(processor.tokenizer(list(texts), verbose=False)["input_ids"], remedy)


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()


def find_pictures(patterns: Sequence[str]) -> list[str]:
    """List the pictures that are named by paths, folders (with subfolders), globs and URLs, in the order of the names.

    A `file://` URL is returned as a path.

    Raises:
        FileNotFoundError: one of them names nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        if pattern.startswith("file://"):
            pattern = url2pathname(urlparse(pattern).path)
        if pattern.startswith(("http://", "https://")) or os.path.isfile(pattern):
            found.append(pattern)
            continue
        paths = Path(pattern).rglob("*") if os.path.isdir(pattern) else map(Path, glob.glob(pattern, recursive=True))
        pictures = sorted(str(path) for path in paths if is_picture(path))
        if not pictures:
            kind = "no pictures in the folder" if os.path.isdir(pattern) else "no such picture"
            raise FileNotFoundError(f"{kind}: {pattern}")
        found += pictures
    return found


class PictureReader:
    """Reads pictures in batches, with a progress bar if there are many.

    A picture that cannot be read is reported on standard error and skipped.
    """

    def __init__(self, paths: Sequence[str], batch_size: int):
        self.paths, self.batch_size = paths, batch_size
        self.unreadable = 0

    def __iter__(self) -> Iterator[tuple[list[str], list[Image.Image]]]:
        """Yield batches of paths and their pictures, without those that cannot be read."""
        with tqdm(total=len(self.paths), unit="picture", disable=len(self.paths) <= FEW or None) as bar:
            for start in range(0, len(self.paths), self.batch_size):
                names, pictures = [], []
                for path in self.paths[start : start + self.batch_size]:
                    try:
                        pictures.append(open_image(path))
                        names.append(path)
                    except (ValueError, OSError) as error:
                        self.unreadable += 1
                        tqdm.write(str(error), file=sys.stderr)
                if pictures:
                    yield names, pictures
                bar.update(min(self.batch_size, len(self.paths) - start))

    @property
    def exit_code(self) -> int:
        """Return 0 if every picture was read, otherwise 2."""
        return 2 if self.unreadable else 0
