"""`vlkd demo`: distills the miniature CLIP into the miniature BART and measures it."""

from pathlib import Path

from .parser import Parser


EXAMPLES = """\
examples:
  vlkd demo
  vlkd demo --seeds 3 --json scores.json
  vlkd demo --from-scratch
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd demo",
        description="Distills a tiny CLIP into a tiny BART, with the paper's losses and with text replay, and\n"
        "asks each the 9,673 test questions of easy-VQA. Minutes on two cores.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="run N seeds; report mean and spread")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores to FILE as well")
    parser.add_argument(
        "--output", type=Path, default=Path("vlkd-demo"), metavar="DIR", help="for the checkpoint (default: vlkd-demo)"
    )
    parser.add_argument("--from-scratch", action="store_true", help="train CLIP and BART first, too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the HTML page (default: DIR/report.html)")
    return parser


def main(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: give 1 or more")
    for name, path in (("--json", args.json), ("--report", args.report)):
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"{name} {path}: there is no folder {path.resolve().parent}")
        if path is not None and path.is_dir():
            parser.error(f"{name} {path}: this is a folder; name a file")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"--output {args.output}: this is a file; name a folder")
    try:
        import easy_vqa  # noqa: F401
    except ImportError:
        parser.error("the demo needs easy-VQA; install it with `pip install modeling_vlkd[demo]`")
    from modeling_vlkd.miniature.demo import run_demo  # after all checks, because it imports torch

    run_demo(args.output, args.seeds, args.seed, args.from_scratch, args.json, args.report)
    return 0
