"""`vlkd evaluate`: measure models on a data set, or score files of predictions, by the official metrics."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from modeling_vlkd.evaluation.glue_tasks import TASKS as GLUE_TASKS
from modeling_vlkd.evaluation.prediction_files import score_answer_files, score_caption_files
from modeling_vlkd.evaluation.report import Report
from modeling_vlkd.evaluation.running import processes
from modeling_vlkd.evaluation.shown_pictures import CONTROLS

from .card_arguments import command_line
from .evaluation_tasks import FLAGS, TASKS
from .model_evaluation import evaluate_models
from .parser import Parser
from .pictures import positive


EXAMPLES = """\
examples, of models:
  vlkd evaluate --task vqa --checkpoint vlkd-demo --questions test.csv
  vlkd evaluate --task vqa --checkpoint my-vlkd Salesforce/blip-vqa-base --images val2014 \\
      --questions v2_OpenEnded_mscoco_val2014_questions.json --annotations v2_mscoco_val2014_annotations.json
  vlkd evaluate --task captioning --checkpoint my-vlkd --annotations dataset_coco.json --split test --images coco
  vlkd evaluate --task retrieval --checkpoint my-vlkd --annotations dataset_flickr30k.json --split test --images flickr
  vlkd evaluate --task classification --checkpoint my-vlkd openai/clip-vit-base-patch16 --images folders
  vlkd evaluate --task infilling --checkpoint my-vlkd facebook/bart-large --texts texts.txt
  vlkd evaluate --task glue --glue-task sst2 --checkpoint my-sst2 --data SST-2

and of files of predictions, whatever made them:
  vlkd evaluate --task vqa --predictions answers.json --annotations v2_mscoco_val2014_annotations.json
  vlkd evaluate --task captioning --predictions captions.json --annotations captions_val2014.json --json out.json

Such a file holds [{"question_id": 1, "answer": "red"}, ...] or [{"image_id": 1, "caption": "a red bus"}, ...], as the
servers of VQAv2, COCO and NoCaps take them; evaluating a model leaves one. Captions need
`pip install "modeling_vlkd[evaluate]"`. A run that was cut off goes on if the same command is given again.
"""
SCORE: dict[str, Callable[[argparse.Namespace], Report]] = {  # files of predictions
    "vqa": lambda args: score_answer_files(
        args.predictions, args.annotations, args.questions, args.seed, args.answer_list
    ),
    "captioning": lambda args: score_caption_files(args.predictions, args.annotations, args.split, args.seed),
}
OF_MODELS = (
    "checkpoint",
    "images",
    "control",
    "batch_size",
    "device",
    "dtype",
    "masks",
    "beams",
    "prompt",
    "trust_remote_code",
    "output_dir",
)


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd evaluate",
        usage="vlkd evaluate --task TASK (--checkpoint MODEL [MODEL ...] | --predictions FILE) [options]",
        description="Measures models on a data set as the official evaluators do, VLKD and others of transformers,\n"
        "or scores a file of predictions, of whatever model.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--task", required=True, choices=list(TASKS), help="what is measured")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", nargs="+", metavar="MODEL", help="models: folders or Hub ids, in one table")
    what.add_argument("--predictions", type=Path, metavar="FILE", help="JSON, in the official format")

    data = parser.add_argument_group("data")
    data.add_argument("--annotations", type=Path, metavar="FILE", help="what people said")
    data.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="of vqa: official ones, or a CSV or JSON lines of image, question, answer",
    )
    data.add_argument("--images", type=Path, metavar="FOLDER", help="the pictures of official files")
    data.add_argument("--split", metavar="NAME", help="of annotations that have several, as Karpathy's do")
    data.add_argument(
        "--answer-list",
        type=Path,
        metavar="FILE",
        help="of vqa: answers that a classifier could choose from; questions are then in-domain or out-of-domain",
    )
    data.add_argument(
        "--captions-per-image",
        type=positive,
        metavar="N",
        help="of retrieval: take the first so many, 5 in published figures",
    )
    data.add_argument(
        "--folds",
        type=positive,
        metavar="N",
        help="of retrieval: also average over so many parts; 5 of COCO's 5,000 are COCO 1K",
    )
    data.add_argument(
        "--text-tower",
        metavar="MODEL",
        help="of retrieval and classification: have this CLIP's text tower read the texts (default: the model itself)",
    )
    data.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="of classification: CSV or JSON lines of image, label (default: folders)",
    )
    data.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="of classification: their names, or `imagenet` (default: the labels)",
    )
    data.add_argument(
        "--templates",
        metavar="FILE",
        help="of classification: prompts with {}, or `openai` (80) or `simple` (7) of CLIP's",
    )
    data.add_argument(
        "--texts", type=Path, metavar="FILE", help="of infilling: a text a line, .txt or .gz; BARTs may stand beside"
    )
    data.add_argument("--limit", type=positive, metavar="N", help="of infilling: take the first so many texts")
    data.add_argument(
        "--data",
        metavar="DATA",
        help="of glue and summarization: CSV, JSON lines, parquet, a folder or Hub id; of glue the official .tsv too",
    )
    data.add_argument("--glue-task", choices=list(GLUE_TASKS), metavar="NAME", help=f"one of {', '.join(GLUE_TASKS)}")
    data.add_argument("--document-column", metavar="NAME", help="of summarization (default: document, as in XSum)")
    data.add_argument("--summary-column", metavar="NAME", help="of summarization (default: summary)")
    data.add_argument(
        "--control", choices=CONTROLS, help="show no picture, another of the data set, or a gray one instead"
    )

    run = parser.add_argument_group("run")
    run.add_argument(
        "--output-dir",
        type=Path,
        metavar="FOLDER",
        help="a folder for each model, with its predictions, report and page (default: vlkd-evaluation/TASK)",
    )
    run.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    run.add_argument("--batch-size", type=positive, metavar="N", help="examples at a time (default: 32)")
    run.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: an accelerator if there is one)"
    )
    run.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="of the weights (default: that of their file)"
    )
    run.add_argument(
        "--masks", type=positive, metavar="N", help="masks in the prompts of a VLKD (default: the checkpoint's)"
    )
    run.add_argument(
        "--prompt", metavar="TEXT", help="that of other models, with {question} in it for vqa (default: their own)"
    )
    run.add_argument("--beams", type=positive, metavar="N", help="beams; 1 is greedy (default: the model's)")
    run.add_argument(
        "--trust-remote-code",
        action="store_true",
        default=None,
        help="let code run that comes with a checkpoint; a VLKD needs none",
    )
    run.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of the bootstrap and of shuffling (default: %(default)s)"
    )
    return parser


def main(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_misplaced(parser, args)
    command = command_line("evaluate", argv)
    if args.checkpoint is not None:
        return evaluate_models(args, command)
    report = SCORE[args.task](args)
    report.facts |= {"seed": args.seed, "command": command}
    show(report)
    if args.json is not None:
        report.save(args.json)
    return 0


def refuse_misplaced(parser: Parser, args: argparse.Namespace):
    """Stop at flags that have no meaning for this task or beside the others, and at a place that cannot be written."""
    given = {name for name, value in vars(args).items() if value is not None}
    for name in given & set().union(*FLAGS.values()) - FLAGS[args.task]:
        tasks = [task for task, flags in FLAGS.items() if name in flags]
        parser.error(f"{flag(name)} is for {', '.join(tasks)}, not for {args.task}")
    if args.checkpoint is not None and (missing := [name for name in TASKS[args.task].needs if name not in given]):
        parser.error(f"--task {args.task} needs {' and '.join(map(flag, missing))}")
    if args.predictions is not None:
        if args.task not in SCORE:
            parser.error(f"--predictions are scored for {' and '.join(SCORE)}; give --checkpoint for {args.task}")
        if misplaced := [name for name in OF_MODELS if name in given]:
            parser.error(f"{flag(misplaced[0])} is for --checkpoint, and --predictions need no model")
        if args.annotations is None:
            parser.error("--predictions need --annotations to be compared with")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: give 0 or more")
    if args.json is not None and not args.json.resolve().parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.resolve().parent}")
    if args.json is not None and args.json.is_dir():
        parser.error(f"--json {args.json}: this is a folder; name a file")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def show(report: Report):
    if not processes().is_main_process:
        return
    Console(soft_wrap=True).print(*report.tables())
    if tokenizer := report.facts.get("tokenizer"):
        print(f"Words were told apart by {tokenizer}.")


if __name__ == "__main__":
    import sys

    from .main import main as vlkd  # it turns an error into one line

    sys.exit(vlkd(["evaluate", *sys.argv[1:]]))
