"""`vlkd evaluate`: score predictions by the official metrics."""

from pathlib import Path

from rich.console import Console

from modeling_vlkd.evaluation.prediction_files import score_answer_files, score_caption_files

from .card_arguments import command_line
from .parser import Parser


EXAMPLES = """\
examples:
  vlkd evaluate --task vqa --predictions answers.json --annotations v2_mscoco_val2014_annotations.json
  vlkd evaluate --task captioning --predictions captions.json --annotations captions_val2014.json --json out.json
  vlkd evaluate --task captioning --predictions captions.json --annotations dataset_coco.json --split test

Answers are [{"question_id": 1, "answer": "red"}, ...], captions [{"image_id": 1, "caption": "a red bus"}, ...], as the
servers of VQAv2, COCO and NoCaps take them. Captions need `pip install "modeling_vlkd[evaluate]"`.
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd evaluate",
        description="Scores a file of predictions, of whatever model, as the official evaluators do: answers of\n"
        "VQAv2 and OK-VQA, captions of COCO and NoCaps.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--task", required=True, choices=["vqa", "captioning"], help="what was predicted")
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE", help="JSON, in the official format")
    parser.add_argument("--annotations", required=True, type=Path, metavar="FILE", help="what people said")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="of vqa, to be checked against the annotations")
    parser.add_argument("--split", help="of captioning, where the annotations have several, as Karpathy's do")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    return parser


def main(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.task != "vqa" and args.questions is not None:
        parser.error(f"--questions are those of vqa, not of {args.task}")
    if args.task != "captioning" and args.split is not None:
        parser.error(f"--split is one of captioning, not of {args.task}")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: give 0 or more")
    if args.json is not None and not args.json.resolve().parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.resolve().parent}")
    if args.json is not None and args.json.is_dir():
        parser.error(f"--json {args.json}: this is a folder; name a file")
    if args.task == "vqa":
        report = score_answer_files(args.predictions, args.annotations, args.questions, args.seed)
    else:
        report = score_caption_files(args.predictions, args.annotations, args.split, seed=args.seed)
    report.facts |= {"seed": args.seed, "command": command_line("evaluate", argv)}
    Console(soft_wrap=True).print(report.table())
    if tokenizer := report.facts.get("tokenizer"):
        print(f"Words were told apart by {tokenizer}.")
    if args.json is not None:
        report.save(args.json)
    return 0
