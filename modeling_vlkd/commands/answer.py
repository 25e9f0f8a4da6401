"""`vlkd answer`: asks questions about pictures."""

import argparse
import json
import os
from pathlib import Path

from tqdm import tqdm

from modeling_vlkd.evaluation.picture_files import PICTURE_SUFFIXES
from modeling_vlkd.evaluation.protocol import Answer
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter

from .answer_table import answer_table
from .parser import Parser
from .pictures import (
    PictureReader,
    add_common_arguments,
    add_generation_arguments,
    find_pictures,
    generation_settings,
    load_checkpoint,
    positive,
    refuse_overlong,
)


EXAMPLES = """\
examples:
  vlkd answer photo.png "what color is the shape?"
  vlkd answer holiday/ "is there a dog?" --json > answers.json
  vlkd answer photo.png --question "what is it?" --question "what color is it?"
  vlkd answer --questions questions.csv --output answers.csv

A table, CSV or JSON lines, has the columns `image` (a path, relative to the table, or a URL) and `question`. All its
columns are kept, and `answer` and `score` are added; where the table has these already, `prediction` and
`prediction_score`. The output is CSV, JSON lines, or with a name in .json the results that VQAv2's server takes, for
which the table needs a column `question_id`. Without --output, it is printed as CSV.
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd answer",
        usage="vlkd answer (IMAGE [IMAGE ...] QUESTION | --questions FILE) [options]",
        description="Answers questions about pictures. A picture that is asked many questions is looked at once.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "inputs", nargs="*", metavar="IMAGE", help="pictures (files, folders, globs or URLs), and last the question"
    )
    parser.add_argument(
        "--question", action="append", metavar="TEXT", help="a question; may be repeated, and then no IMAGE is one"
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="a table of pictures and questions, .csv or .jsonl, to be answered",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="of --questions: write the answers to FILE, .csv, .jsonl or .json"
    )
    parser.add_argument(
        "--top-k", type=positive, default=1, help="how many answers to give to each question (default: %(default)s)"
    )
    add_generation_arguments(parser)
    add_common_arguments(parser)
    return parser


def main(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    if args.questions is not None:
        refuse_beside_a_table(parser, args)
        return answer_table(args)
    if args.output is not None:
        parser.error("--output is for the answers to --questions FILE")
    if not args.inputs:
        parser.error("the following arguments are required: IMAGE and QUESTION, or --questions FILE")
    images, questions = (args.inputs, args.question) if args.question else (args.inputs[:-1], args.inputs[-1:])
    if not images:
        parser.error(f"expected pictures and a question, got only {args.inputs[0]!r}")
    if not args.question and names_picture(questions[0]):
        parser.error(f"the question is missing: {questions[0]!r}, the last word, names pictures (or give --question)")
    paths = find_pictures(images)
    model, processor = load_checkpoint(args.checkpoint, args.device)
    prompts = processor.question_prompts(questions, args.masks)  # refuses an empty question before a picture is read
    refuse_overlong(processor, prompts, "shorten the question or take fewer --masks")
    adapter = VLKDAdapter(model, processor, num_masks=args.masks, top_k=args.top_k, **generation_settings(args))
    reader = PictureReader(paths, args.batch_size)
    found: list[dict] = []
    for names, pictures in reader:
        index = [place for place in range(len(names)) for _ in questions]
        asked = questions * len(names)
        answers = adapter.rank_answers(adapter.look(pictures), asked, index)
        for place, question, ranked in zip(index, asked, answers):
            said = [{"answer": answer.text, "score": answer.score} for answer in ranked]
            found.append({"image": names[place], "question": question, "answers": said})
            if not args.json:
                for answer in ranked:
                    tqdm.write(line(names[place], question, answer, len(paths) > 1, len(questions) > 1))
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return reader.exit_code


def refuse_beside_a_table(parser: Parser, args: argparse.Namespace):
    """Stop at arguments that have no meaning beside a table."""
    if args.inputs or args.question:
        given = repr(args.inputs[0]) if args.inputs else "--question"
        parser.error(f"--questions names a file with all pictures and questions; leave {given} out")
    if args.json:
        parser.error("--json is for pictures on the command line; give --output answers.jsonl")
    if args.top_k > 1:
        parser.error("--top-k is for pictures on the command line; a table gets one answer in each row")


def names_picture(word: str) -> bool:
    """Tell whether the last word of the command line is not a question, but a path, a URL or the name of a picture."""
    one_word = len(word.split()) == 1
    return os.path.exists(word) or (one_word and ("://" in word or Path(word).suffix.lower() in PICTURE_SUFFIXES))


def line(name: str, question: str, answer: Answer, many_images: bool, many_questions: bool) -> str:
    """Return one answer as a tab-separated line; it names the picture and the question only if there are several."""
    columns = []
    if many_images:
        columns.append(name)
    if many_questions:
        columns.append(question)
    return "\t".join([*columns, answer.text, f"{answer.score:.3f}"])
