"""`vlkd embed`: embeds pictures and texts in CLIP's space."""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch.nn.functional import normalize

from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter

from .parser import Parser
from .pictures import PictureReader, add_common_arguments, find_pictures, load_checkpoint, refuse_overlong


EXAMPLES = """\
examples:
  vlkd embed photo.png --text "a red circle" --text "a blue square"
  vlkd embed holiday/ --output holiday.safetensors
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd embed",
        description="Embeds pictures (with CLIP) and texts (with the distilled BART) in CLIP's space,\n"
        "L2-normalized, and prints how similar each text is to each picture.",
        epilog=EXAMPLES,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files, folders, globs or URLs")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text; may be repeated")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write there, as safetensors, `images` and `texts` of (count, dimensions), with their names as metadata",
    )
    add_common_arguments(parser)
    return parser


def main(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    if not args.images and not args.text:
        parser.error("expected pictures, --text, or both")
    if args.output and not args.output.parent.is_dir():
        parser.error(f"there is no folder {args.output.parent} to write {args.output.name} to")
    if args.output and args.output.is_dir():
        parser.error(f"--output {args.output}: this is a folder; name a file")
    paths = find_pictures(args.images)
    model, processor = load_checkpoint(args.checkpoint, args.device)
    refuse_overlong(processor, args.text, "shorten it")
    adapter = VLKDAdapter(model, processor, args.batch_size)
    reader = PictureReader(paths, args.batch_size)
    names, images = embed_pictures(adapter, reader)
    texts = normalize(adapter.embed_texts(args.text), dim=-1)
    tensors = {name: rows for name, rows in (("images", images), ("texts", texts)) if len(rows)}
    if args.output and tensors:
        write_whole(args.output, save(tensors, {"images": json.dumps(names), "texts": json.dumps(args.text)}))
    similarities = (images @ texts.T).tolist()  # (images, texts)
    if args.json:
        embeddings = {name: rows.tolist() for name, rows in tensors.items()}
        report = {"images": names, "texts": args.text, "similarities": similarities, "embeddings": embeddings}
        print(json.dumps(report, ensure_ascii=False))
    else:
        for name, row in zip(names, similarities):
            for text, similarity in sorted(zip(args.text, row), key=lambda pair: -pair[1]):
                columns = [text, f"{similarity:.3f}"]
                if len(names) > 1:
                    columns.insert(0, name)
                print("\t".join(columns))
        count = f"{len(names)} pictures and {len(texts)} texts in {model.config.projection_dim} dimensions"
        print(f"{count}, written to {args.output}" if args.output else f"{count}; --output FILE keeps them")
    return reader.exit_code


def write_whole(path: Path, content: bytes):
    """Write a file completely or, if that fails (the disk may be full), not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def embed_pictures(adapter: VLKDAdapter, reader: PictureReader) -> tuple[list[str], torch.Tensor]:
    """Return the names of the readable pictures and their embeddings, `(pictures, dim)`, normalized, on the CPU."""
    names, embeddings = [], [adapter.embed_images([])]
    for batch, pictures in reader:
        embeddings.append(adapter.embed_images(pictures))
        names += batch
    return names, normalize(torch.cat(embeddings), dim=-1)
