"""`vlkd reproduce`: measures a table of the paper in miniature, and says which of its claims hold there."""

from importlib.util import find_spec
from pathlib import Path

from .parser import Parser


# The tables, and what is known of them before torch is imported.
TABLES = {
    "objectives": "without TTDM, without ITCL, without both (table 6)",
    "masks": "masks in a caption prompt and in a question prompt (table 7)",
    "data-size": "1/3 and 1/30 of the image-caption pairs (table 8)",
    "frozen-clip": "CLIP's vision tower frozen or trained (section 5)",
}
VARIANTS = ("paper", "unaligned", "replay")
PACKAGES = ("easy_vqa", "matplotlib", "pycocoevalcap")  # of extras
EXAMPLES = """\
tables:
{tables}

variants:
  paper      the losses of the paper alone
  unaligned  the same, with W_e starting at random; else it starts where it brings BART's sentences closest to CLIP's
  replay     with text replay, an extension that is not the paper's; not in frozen-clip

examples:
  vlkd reproduce objectives --seeds 3
  vlkd reproduce objectives --seeds 3 --variants paper replay
  vlkd reproduce masks --steps 30          a quick look, of too short a training

A run takes about two minutes. It leaves its checkpoint and its scores in DIR/runs, and is not run again by a later
command, for this or another table; so a command that was interrupted goes on where it was. Beside them stand
DIR/TABLE.json, DIR/TABLE.md and DIR/TABLE.png.
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd reproduce",
        description="Measures a table of the paper (arXiv:2203.06386) in miniature, on easy-VQA: every row with each\n"
        "seed, beside baselines of the same budget. Says by a rule which of the paper's claims hold there.",
        epilog=EXAMPLES.format(tables="\n".join(f"  {name:<13}{text}" for name, text in TABLES.items())),
    )
    parser.add_argument("table", choices=TABLES, metavar="TABLE", help=f"one of {', '.join(TABLES)}")
    parser.add_argument("--world", choices=["miniature"], default="miniature", help="where (default: miniature)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=["paper"], help="how to train the rows (default: paper)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="steps of a whole training (default: 300)")
    parser.add_argument(
        "--output", type=Path, default=Path("vlkd-reproduce"), metavar="DIR", help="(default: vlkd-reproduce)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    return parser


def main(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, value in (("--seeds", args.seeds), ("--steps", args.steps)):
        if value is not None and value < 1:
            parser.error(f"{name} {value}: give 1 or more")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: give 0 or more")
    if args.table == "frozen-clip" and "replay" in args.variants:
        parser.error("--variants replay: replay needs a frozen CLIP; leave it out for frozen-clip")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"--output {args.output}: this is a file; name a folder")
    if args.json is not None and not args.json.resolve().parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.resolve().parent}")
    if args.json is not None and args.json.is_dir():
        parser.error(f"--json {args.json}: this is a folder; name a file")
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        parser.error(f"{missing[0]} is missing; install it with `pip install modeling_vlkd[demo,evaluate]`")
    from modeling_vlkd.miniature.reproducing import run_table  # after all checks, because it imports torch

    seeds = list(range(args.seed, args.seed + args.seeds))
    run_table(args.table, list(dict.fromkeys(args.variants)), seeds, args.steps, args.output, args.json)
    return 0
