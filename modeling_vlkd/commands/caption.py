"""`vlkd caption`: captions pictures."""

import json

from tqdm import tqdm

from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter

from .parser import Parser
from .pictures import (
    PictureReader,
    add_common_arguments,
    add_generation_arguments,
    find_pictures,
    generation_settings,
    load_checkpoint,
    refuse_overlong,
)


EXAMPLES = """\
examples:
  vlkd caption photo.png
  vlkd caption "holiday/*.jpg" --masks 8 --beams 4
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd caption",
        description="Captions pictures.",
        epilog=EXAMPLES,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders, globs or URLs")
    add_generation_arguments(parser)
    add_common_arguments(parser)
    return parser


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    paths = find_pictures(args.images)
    model, processor = load_checkpoint(args.checkpoint, args.device)
    refuse_overlong(processor, processor.caption_prompts(1, args.masks), "take fewer --masks")
    adapter = VLKDAdapter(model, processor, num_masks=args.masks, **generation_settings(args))
    reader = PictureReader(paths, args.batch_size)
    found = []
    for names, pictures in reader:
        for name, caption in zip(names, adapter.caption(pictures)):
            found.append({"image": name, "caption": caption.text, "score": caption.score})
            if not args.json:
                columns = [caption.text, f"{caption.score:.3f}"]
                if len(paths) > 1:
                    columns.insert(0, name)
                tqdm.write("\t".join(columns))
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return reader.exit_code
