"""`vlkd caption`: captions pictures."""

import json

import torch
from tqdm import tqdm

from modeling_vlkd.generation_vlkd import generate_captions

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
    generate_kwargs = generation_settings(args)
    reader = PictureReader(paths, processor, args.batch_size)
    found = []
    for names, pixels in reader:
        with torch.no_grad():
            rows = model.get_image_rows(pixels.to(model.device, model.dtype))
        captions = generate_captions(model, processor, rows, args.masks, **generate_kwargs)
        for name, [best] in zip(names, captions):
            found.append({"image": name, **best})
            if not args.json:
                tqdm.write("\t".join([name] * (len(paths) > 1) + [best["caption"], f"{best['score']:.3f}"]))
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return reader.exit_code
