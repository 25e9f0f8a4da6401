"""Makes a VLKD checkpoint out of a CLIP and a BART in any format, one tower at a time, and proves it equal to them."""

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.publishing.cards import CardFacts, count_image_rows, count_parameters, make_card, write_card
from modeling_vlkd.publishing.errors import first_line
from modeling_vlkd.publishing.provenance import Provenance, Source, public_words, read_metadata, stated_languages

from .bart_source import BartSource, no_mask_error
from .errors import ConversionError, UnsupportedError, blaming
from .proof import (
    Check,
    LanguageProbe,
    VisionProbe,
    check_checkpoint,
    check_teacher,
    probe_ids,
    probe_language,
    probe_teacher,
    probe_text,
    probe_vision,
    refuse_failures,
)
from .resolving import open_text, open_vision
from .sources import TOKENIZER_REMEDY, CLIPSource


MAX_SHARD_SIZE = "5GB"
STEPS = 6  # how often a conversion calls `progress`


@dataclass(frozen=True)
class Part:
    """A line of the report: what a part of the model is, where it came from and where it went.

    name: of the part, such as "vision tower".
    origin: the source that it came from.
    destination: the module or folder that it went to; "-" if none.
    tensors, parameters: how many of each it has; 0 if it was not converted.
    """

    name: str
    origin: str
    destination: str
    tensors: int = 0
    parameters: int = 0


@dataclass
class Report:
    """What a conversion did: its parts and the proof."""

    parts: list[Part] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


def part_of(name: str, origin: str, destination: str, module: nn.Module) -> Part:
    """Describe a module, and count its tensors and parameters; tied ones count once."""
    tensors = list(module.parameters())
    return Part(name, origin, destination, len(tensors), sum(tensor.numel() for tensor in tensors))


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a new folder to fill, and rename it to `target` at the end; after an error nothing is left of it.

    Raises:
        ConversionError: `target` is there already, or its parent folder cannot be written to.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConversionError(f"{target} exists already; choose another folder, or remove it.")
    if not target.parent.is_dir():
        raise ConversionError(f"There is no folder {target.parent} to write {target.name} into.")
    try:
        with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            content = Path(folder) / "content"
            content.mkdir()
            yield content
            os.replace(content, target)
    except Exception as error:
        # The files of tokenizers are written by Rust code, which raises a bare Exception.
        if not isinstance(error, (OSError, SafetensorError)) and type(error) is not Exception:
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise ConversionError(f"Writing {target} failed: {reason}. Nothing was left behind.") from error


def forget_code(settings: dict[str, Any]):
    """Remove the settings that name python files of the source.

    These files are neither run nor copied, so the saved model could not be loaded with such settings.
    """
    for name in ("auto_map", "custom_pipelines"):
        settings.pop(name, None)


def save_tower(model: PreTrainedModel, folder: Path):
    """Write a model without the path that it was loaded from, which would differ from run to run."""
    model.config._name_or_path = ""
    forget_code(vars(model.config))
    model.save_pretrained(folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path):
    """Write a tokenizer without the names of python files that came with it."""
    forget_code(tokenizer.init_kwargs)
    tokenizer.save_pretrained(folder)


def check_preprocessing(source: CLIPSource, processor: BaseImageProcessor, tower: PreTrainedModel):
    """Prepare a picture for the tower, so that a mistake in the preprocessing is found here and not in the tower.

    Raises:
        ConversionError: the preprocessing fails, or it gives pictures of a wrong size or values that are not finite.
    """
    remedy = "take the preprocessing that came with the weights"
    # No warning of a division by zero: its result is refused below.
    with blaming(source.preprocessing, remedy), np.errstate(all="ignore"):
        pixels = processor(Image.new("RGB", (31, 23), "gray"), return_tensors="pt")["pixel_values"]  # (1, 3, h, w)
    size = tower.config.image_size
    if tuple(pixels.shape[-2:]) != (size, size):
        got = " x ".join(map(str, pixels.shape[-2:]))
        raise ConversionError(
            f"{source.preprocessing}: makes pictures of {got}, but the tower sees {size} x {size}; {remedy}."
        )
    if not pixels.isfinite().all():
        raise ConversionError(f"{source.preprocessing}: makes values that are not finite out of a picture; {remedy}.")


def convert_vision(source: CLIPSource, folder: Path, report: Report) -> VisionProbe:
    """Write the vision tower and its preprocessing in transformers' format, and run the original for the proof."""
    processor, tower = source.image_processor(), source.vision_tower()
    check_preprocessing(source, processor, tower)
    report.parts.append(part_of("vision tower", f"{source.name} ({source.format})", "model.vision_tower", tower))
    save_tower(tower, folder)
    forget_code(vars(processor))
    processor.save_pretrained(folder)
    del tower  # before the original is loaded, so that only one is in memory
    return probe_vision(source.vision_reference())


def convert_teacher(source: CLIPSource, folder: Path | None, report: Report):
    """Convert and prove CLIP's text tower, the teacher of a distillation, and write it if a folder is given.

    Without a folder the user did not ask for the teacher, so the source may then lack the tower or the tokenizer.
    """
    try:
        teacher = source.text_teacher()
    except UnsupportedError as error:
        if folder is not None:
            raise
        report.parts.append(Part("text teacher", f"not converted: {error}", "-"))
        return
    try:
        tokenizer = source.tokenizer()
    except ConversionError:
        if folder is not None:
            raise
        tokenizer = None
    config = teacher.config
    ids = probe_ids(config.vocab_size, config.max_position_embeddings, end_of_text(config))
    converted = probe_teacher(teacher, tokenizer, ids)
    destination = "-" if folder is None else "the teacher's folder"
    report.parts.append(part_of("text teacher", f"{source.name} ({source.format})", destination, teacher))
    if folder is not None:
        save_tower(teacher, folder)
        save_tokenizer(tokenizer, folder)
    del teacher  # before the original is loaded, so that only one is in memory
    report.checks += check_teacher(probe_text(source.text_reference(), ids, tokenizer is not None), converted)


def end_of_text(config: PreTrainedConfig) -> int:
    """Return the token at which CLIP's text tower pools; 2 in an old configuration means the highest id."""
    end = config.eos_token_id
    return end if isinstance(end, int) and 2 < end < config.vocab_size else config.vocab_size - 1


def convert_language(source: BartSource, folder: Path, report: Report) -> LanguageProbe:
    """Write the BART and its tokenizer in transformers' format, and run the original for the proof."""
    tokenizer, model = source.tokenizer(), source.model()
    entries, embedded = len(tokenizer), model.config.vocab_size
    if tokenizer.mask_token_id is None:
        raise ConversionError(f"{source.name}: its tokenizer has no mask token; {TOKENIZER_REMEDY}.")
    if tokenizer.convert_tokens_to_ids("<mask>") == entries - 1 == embedded:
        raise no_mask_error(source.name, embedded)
    if entries > embedded:
        raise ConversionError(
            f"{source.name}: its tokenizer has {entries} tokens, but the model embeds {embedded}; {TOKENIZER_REMEDY}."
        )
    report.parts.append(part_of("language model", f"{source.name} ({source.format})", "model.language_model", model))
    save_tower(model, folder)
    save_tokenizer(tokenizer, folder)
    return probe_language(model)


def assemble(
    vision: Path, text: Path, output: Path, seed: int, max_shard_size: str, report: Report, provenance: Provenance
) -> CardFacts:
    """Put the towers and three new matrices together, and write the checkpoint with its processor.

    Returns:
        What the model card tells of it.
    """
    torch.manual_seed(seed)
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(str(vision), str(text))
    for name, module in (("W_e", "text_projection"), ("W'_e", "text_to_decoder"), ("W_i", "image_to_decoder")):
        report.parts.append(part_of(name, f"new, seed {seed}", f"model.{module}", getattr(model.model, module)))
    model.save_pretrained(output, max_shard_size=max_shard_size)
    VLKDProcessor.from_vision_text_pretrained(str(vision), str(text)).save_pretrained(output)
    title = " + ".join(source.name for source in provenance.sources)
    return CardFacts(title, "DIR", "converted", provenance, count_parameters(model), count_image_rows(model.config))


def provenance_of(clip: CLIPSource, bart: BartSource, options: Sequence[str], license: str | None) -> Provenance:
    """Describe what is converted, and by which command.

    The command has DIR in place of the output's name, which changes no byte of the checkpoint.
    """
    words = ["vlkd", "convert", "--vision", clip.name, "--text", bart.name, "--output", "DIR", *options]
    sources = [
        Source.find("vision tower", clip.name, note=clip.format),
        Source.find("language model", bart.name, note=bart.format),
    ]
    language = stated_languages(read_metadata(bart.name))
    return Provenance(sources, [shlex.join(public_words(words))], license, language)


def prove(folder: Path, vision: VisionProbe, language: LanguageProbe) -> list[Check]:
    """Load the written checkpoint as a user would, and compare it with the originals."""
    model = VLKDForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return check_checkpoint(model, VLKDProcessor.from_pretrained(folder), vision, language)


def convert(
    vision: str,
    text: str,
    output: Path,
    teacher: Path | None = None,
    seed: int = 0,
    max_shard_size: str = MAX_SHARD_SIZE,
    license: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Report:
    """Convert a CLIP and a BART into a VLKD checkpoint.

    Args:
        vision, text: the names of both models; see `resolving.open_vision` and `open_text`.
        output: the checkpoint's folder; it must be empty, or not exist yet.
        teacher: the folder for CLIP's text tower and its tokenizer, which a distillation needs; not written if None.
        seed: of the new matrices; the same seed gives the same bytes.
        max_shard_size: weights are written to files of at most this size.
        license: the model's license, for its card; the card states none if None.
        progress: called with the name of each step before the step begins.

    Returns:
        What went where, and the measured differences.

    Raises:
        ConversionError: a source cannot be converted, the folder cannot be written, or the proof fails. Nothing of the
            checkpoint is left then.
    """
    report = Report()
    if teacher is not None and teacher.absolute() == output.absolute():
        raise ConversionError(f"{output} cannot hold both the checkpoint and the teacher; give the teacher a folder.")
    progress("opening both models")
    clip, bart = open_vision(vision), open_text(text)
    options = ["--seed", str(seed)]
    if max_shard_size != MAX_SHARD_SIZE:
        options += ["--max-shard-size", max_shard_size]
    provenance = provenance_of(clip, bart, options, license)
    with (
        torch.random.fork_rng(devices=[]),  # leaves the caller's random state as it was
        staged(output) as content,
        nullcontext() if teacher is None else staged(teacher) as teacher_folder,
        TemporaryDirectory(dir=content.parent, prefix="towers.") as towers,
    ):
        vision_folder, text_folder = Path(towers) / "vision", Path(towers) / "text"
        progress("converting the vision tower")
        vision_probe = convert_vision(clip, vision_folder, report)
        progress("converting the text teacher")
        convert_teacher(clip, teacher_folder, report)
        del clip  # frees the memory that its file is mapped to
        progress("converting the language model")
        language_probe = convert_language(bart, text_folder, report)
        del bart
        progress("putting them together")
        facts = assemble(vision_folder, text_folder, content, seed, max_shard_size, report, provenance)
        progress("proving the checkpoint")
        report.checks += prove(content, vision_probe, language_probe)
        refuse_failures(report.checks)
        facts.proof = [(check.subject, check.against, check.limit) for check in report.checks]
        write_card(make_card(facts), content)
    return report
