"""`vlkd convert`: assembles a model from a CLIP and a BART in any format, and proves that it computes the same."""

import argparse
import re
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers.utils import logging

from modeling_vlkd.conversion.assembling import MAX_SHARD_SIZE, STEPS, Report, convert
from modeling_vlkd.conversion.resolving import VISION_HELP

from .card_arguments import LICENSE_HELP, license_id
from .parser import Parser


EXAMPLES = """\
examples:
  vlkd convert --vision openai/clip-vit-base-patch16 --text facebook/bart-large --output my-vlkd
  vlkd convert --vision RN50x16.pt --text facebook/bart-large --output my-vlkd --teacher my-teacher
  vlkd convert --vision ViT-L-14:laion2b_s32b_b82k --text bart.large/ --output my-vlkd
"""


def file_size(text: str) -> str:
    """Check that a text is a file size, such as 500MB."""
    if not re.fullmatch(r"[1-9]\d*(\.\d+)?(KB|MB|GB|TB)", text):  # "500MB", "2.5GB"
        raise argparse.ArgumentTypeError(f"expected a size such as 500MB, got {text!r}")
    return text


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd convert",
        description="Assembles a model from the vision tower of a CLIP, a BART and three new matrices, ready to be "
        "distilled, and proves that both towers compute what they computed before.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--vision", required=True, metavar="CLIP", help=VISION_HELP)
    parser.add_argument(
        "--text",
        required=True,
        metavar="BART",
        help="a folder or Hub id in transformers' format, or a folder with fairseq's model.pt, dict.txt and vocab.bpe",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new folder for the checkpoint")
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="DIR",
        help="a new folder for CLIP's text tower and tokenizer in transformers' format, the teacher of a distillation",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the new matrices (default: 0)")
    parser.add_argument(
        "--max-shard-size",
        type=file_size,
        default=MAX_SHARD_SIZE,
        metavar="SIZE",
        help=f"largest size of one file of weights, such as 500MB (default: {MAX_SHARD_SIZE})",
    )
    parser.add_argument("--license", type=license_id, metavar="ID", help=LICENSE_HELP)
    return parser


def print_report(report: Report, output: Path):
    """Print where each part of the model comes from, and the proof."""
    console = Console(soft_wrap=True)
    parts = Table(title="What went where", title_justify="left")
    parts.add_column("part", no_wrap=True)
    parts.add_column("from", overflow="fold")
    parts.add_column("to", no_wrap=True)
    for column in ("tensors", "parameters"):
        parts.add_column(column, justify="right")
    for part in report.parts:
        counts = (f"{part.tensors:,}", f"{part.parameters:,}") if part.tensors else ("", "")
        parts.add_row(part.name, part.origin, part.destination, *counts)
    proof = Table(title="Proof: largest differences", title_justify="left")
    for column in ("of", "against"):
        proof.add_column(column)
    for column in ("difference", "allowed"):
        proof.add_column(column, justify="right")
    for check in report.checks:
        proof.add_row(check.subject, check.against, f"{check.difference:.3g}", f"{check.limit:g}")
    console.print(parts, proof, f"Written to {output}", sep="\n", highlight=False)


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    logging.set_verbosity_error()  # `convert` itself measures whether anything went wrong
    logging.disable_progress_bar()
    with tqdm(total=STEPS, bar_format="{desc} {bar} {n}/{total} {elapsed}", leave=False, disable=None) as bar:
        done = count()

        def progress(step: str):
            bar.n = next(done)
            bar.set_description_str(step)

        report = convert(
            args.vision,
            args.text,
            args.output,
            args.teacher,
            args.seed,
            args.max_shard_size,
            args.license,
            progress,
        )
    print_report(report, args.output)
    return 0
