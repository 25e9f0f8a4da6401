"""`vlkd push`: publishes a checkpoint on the Hub, and says how a stranger loads it."""

from pathlib import Path

from transformers.utils import logging

from modeling_vlkd.publishing.publish import Published, publish
from modeling_vlkd.publishing.shareable import AUTO_CLASSES

from .parser import Parser


EXAMPLES = """\
examples:
  vlkd push my-vlkd alice/my-vlkd
  vlkd push my-vlkd alice/my-vlkd --tag v1.0 --message "Distilled for ten epochs"
  vlkd push my-vlkd alice/my-vlkd --private

`hf auth login` keeps a token, which needs the right to write. The folder is checked before anything is uploaded.
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="vlkd push",
        description="Publishes a checkpoint on the Hub in one commit: weights, processor, tokenizer, the code that "
        "loads them, and the model card. What else is in the folder, such as the training's state, stays here.",
        epilog=EXAMPLES,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a whole checkpoint with a README.md, its card")
    parser.add_argument("repo", metavar="USER/REPO", help="where to publish it; made if it is not there")
    parser.add_argument("--tag", metavar="NAME", help="a new name for this version, such as v1.0")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    return parser


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    logging.disable_progress_bar()  # of the check only; the upload has a bar of huggingface_hub
    published = publish(args.folder, args.repo, tag=args.tag, private=args.private, message=args.message)
    print(summary(published))
    return 0


def summary(published: Published) -> str:
    """Describe what is on the Hub now and what was left out, and show the lines of code that load it."""
    content = published.content
    state = "" if published.changed else ", which it held already: nothing was changed"
    named = f", tagged {published.tag}" if published.tag else ""
    lines = [
        f"{published.url}{' (private)' if published.private else ''}, commit {published.commit[:7]}{named}: "
        f"{len(content.files)} files, {content.size / 1e6:,.1f} MB{state}."
    ]
    if published.removed:
        lines.append(f"Removed there, being weights of before: {', '.join(published.removed)}.")
    if content.left_out:
        lines.append(f"Left out: {', '.join(content.left_out)}.")
    return "\n".join([*lines, "", "Whoever has transformers loads it with", "", *loading_lines(published)])


def loading_lines(published: Published) -> list[str]:
    """Return the lines of code by which a stranger loads the model."""
    revision = f'revision="{published.tag}", ' if published.tag else ""
    where = f'"{published.repo_id}", {revision}trust_remote_code=True'
    if published.content.architecture != "VLKDForConditionalGeneration":  # the pipeline needs a generating model
        auto_class = AUTO_CLASSES[published.content.architecture]
        return [
            f"    from transformers import {auto_class}, AutoProcessor",
            f"    model = {auto_class}.from_pretrained({where})",
            f"    processor = AutoProcessor.from_pretrained({where})",
        ]
    return [
        "    from transformers import pipeline",
        f'    answerer = pipeline("visual-question-answering", model={where})',
        '    answerer(image="picture.jpg", question="what color is it?")',
    ]
