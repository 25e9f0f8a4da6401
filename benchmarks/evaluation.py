"""Measure how many questions and captions a second the evaluation path takes, beside plain loops over two peers.

    python benchmarks/evaluation.py --size small

Five models are made with random weights: a VLKD of a CLIP ViT-B/16 and BART-large, transformers' own BLIP (base; one
for answers and one for captions), and Florence-2-base. All see the same JPEG files, answer the same questions at the
same batch size, and write texts of the same length, greedily.

What is timed for each is all that lies between files and texts. `evaluation` is this package: the benchmarks of
questions and of captions, run as `vlkd evaluate` runs them, with each prediction written to a file. `by hand` is a
loop as a user writes it: open the pictures of a batch, processor, generate, batch_decode. So `ours` compares our model
with each peer, and `over by hand` shows for the same peer what the evaluation path costs or saves. Florence-2 was not
made to answer, and is given each question as it stands. Scoring and loading are not timed, and the first batch, which
is slower, is run once before. Questions and captions a second are by the clock; the ratios are of processor time,
which other programs on the machine disturb less.

BLIP's questions cost more here than by hand if there are few: those of one length are answered together, because its
decoder reads the padding of shorter ones, so that by hand an answer depends on the other questions of its batch.

With the defaults it takes some minutes on two cores and some GB of memory. `--size small` takes models of a few
million parameters, which shows the cost of the path itself, and ends in a minute.
"""

import argparse
import json
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedModel,
    ProcessorMixin,
)

from modeling_vlkd import VLKDConfig, VLKDForConditionalGeneration, VLKDImageProcessor, VLKDProcessor
from modeling_vlkd.evaluation.benchmark import Benchmark
from modeling_vlkd.evaluation.caption_files import CaptionReferences
from modeling_vlkd.evaluation.captioning import CaptioningBenchmark
from modeling_vlkd.evaluation.peers import adapt
from modeling_vlkd.evaluation.protocol import VisionLanguageModel
from modeling_vlkd.evaluation.running import run_benchmark
from modeling_vlkd.evaluation.shown_pictures import ShownPictures
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.evaluation.vqa_benchmark import VQABenchmark
from modeling_vlkd.evaluation.vqa_files import VQAQuestion
from modeling_vlkd.known_prefix_vlkd import default_generation_config
from modeling_vlkd.miniature.distilling import WEIGHTS


QUESTIONS = [
    "what color is the shape?",
    "is there a red circle in the image?",
    "what shape is present?",
    "does the image not contain a rectangle?",
    "which color does the triangle have?",
    "is no blue shape there?",
]
SPECIAL = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}  # of the miniature's tokenizer, which all take


@dataclass(frozen=True)
class Size:
    """Widths and depths of all models; those of the released checkpoints under "base"."""

    vision: tuple[int, int]  # width and layers of the ViT of VLKD and of BLIP, and of BLIP's text model
    vlkd_pixels: int
    bart: tuple[int, int]  # width and layers of each half
    blip_pixels: int
    florence: tuple[tuple[int, ...], tuple[int, ...]]  # widths and depths of its DaViT
    florence_pixels: int
    florence_text: tuple[int, int]


SIZES = {
    "base": Size((768, 12), 224, (1024, 12), 384, ((128, 256, 512, 1024), (1, 1, 9, 1)), 768, (768, 6)),
    "small": Size((192, 3), 112, (192, 3), 112, ((32, 64, 96, 192), (1, 1, 2, 1)), 192, (192, 3)),
}


def layers(width: int, depth: int) -> dict[str, int]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth}
    return {**sizes, "num_attention_heads": width // 64}


def bart(width: int, depth: int) -> dict[str, Any]:
    sizes = {"model_type": "bart", "vocab_size": 50265, "d_model": width, "max_position_embeddings": 1024}
    for half in ("encoder", "decoder"):
        sizes |= {f"{half}_layers": depth, f"{half}_ffn_dim": 4 * width, f"{half}_attention_heads": width // 64}
    return sizes


def make_vlkd(size: Size) -> tuple[PreTrainedModel, VLKDProcessor]:
    vision = {"model_type": "clip_vision_model", **layers(*size.vision), "patch_size": 16, "projection_dim": 512}
    config = VLKDConfig(vision_config={**vision, "image_size": size.vlkd_pixels}, text_config=bart(*size.bart))
    pixels = VLKDImageProcessor(size={"shortest_edge": size.vlkd_pixels}, crop_size=size.vlkd_pixels)
    processor = VLKDProcessor(pixels, AutoTokenizer.from_pretrained(WEIGHTS / "bart"))
    model = VLKDForConditionalGeneration(config)
    model.generation_config = default_generation_config(config.text_config, processor.tokenizer.mask_token_id)
    return model, processor


def make_blip(size: Size, model_class: type[PreTrainedModel]) -> tuple[PreTrainedModel, ProcessorMixin]:
    text = {**layers(*size.vision), "encoder_hidden_size": size.vision[0], "vocab_size": 30524}
    text |= {"bos_token_id": 0, "pad_token_id": 1, "sep_token_id": 2}
    config = BlipConfig(
        text_config=text, vision_config={**layers(*size.vision), "image_size": size.blip_pixels, "patch_size": 16}
    )
    pixels = BlipImageProcessor(size={"height": size.blip_pixels, "width": size.blip_pixels})
    return model_class(config), BlipProcessor(pixels, AutoTokenizer.from_pretrained(WEIGHTS / "bart"))


def make_florence2(size: Size) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "bart", extra_special_tokens={"image_token": "<image>"})
    widths, depths = size.florence
    heads = [width // 32 for width in widths]
    vision = {"embed_dim": widths, "depths": depths, "num_heads": heads, "num_groups": heads}
    vision |= {"projection_dim": size.florence_text[0]}
    config = Florence2Config(
        text_config={**bart(*size.florence_text), "vocab_size": 51289},
        vision_config=vision,
        image_token_id=tokenizer.image_token_id,
    )
    square = {"height": size.florence_pixels, "width": size.florence_pixels}
    pixels = CLIPImageProcessor(size=square, do_center_crop=False)
    pixels.image_seq_length = (size.florence_pixels // 32) ** 2 + 1  # the last grid, and its mean
    processor = Florence2Processor(pixels, tokenizer, post_processor_config={"pure_text": {}})
    return Florence2ForConditionalGeneration(config), processor


def make_benchmarks(folder: Path, pictures: int, questions: int) -> tuple[Benchmark, Benchmark]:
    """Make pictures of 640 x 480, as COCO's are, and ask about each."""
    rng, files = np.random.default_rng(0), {}
    for image in range(pictures):
        files[image] = folder / f"{image}.jpg"
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(files[image])
    shown, draw = ShownPictures(files), random.Random(0)
    asked = {n: VQAQuestion(n, n // questions, draw.choice(QUESTIONS)) for n in range(pictures * questions)}
    references = CaptionReferences({image: ["a picture"] for image in files}, {})
    return VQABenchmark(asked, shown), CaptioningBenchmark(references, shown)


def by_hand(
    model: PreTrainedModel, processor: ProcessorMixin, items: Sequence[tuple[Path, str]], batch_size: int, length: int
) -> list[str]:
    """Write a text for each picture and prompt, as the documentation of transformers shows; "" is no prompt."""
    texts = []
    for first in range(0, len(items), batch_size):
        batch = items[first : first + batch_size]
        pictures = [Image.open(path).convert("RGB") for path, _ in batch]
        prompts = {"text": [prompt for _, prompt in batch], "padding": True} if batch[0][1] else {}
        inputs = processor(images=pictures, return_tensors="pt", **prompts)
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=length, min_new_tokens=length, num_beams=1, do_sample=False)
        texts += processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return texts


class Stopwatch:
    """Times each way to predict, after its first batch has been run once."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder
        self.seconds: dict[str, dict[str, tuple[float, float]]] = {}  # name of the way -> task -> clock, processor

    def evaluation(self, name: str, model: VisionLanguageModel, benchmark: Benchmark):
        benchmark.predict(model, list(benchmark.order())[: self.args.batch_size])
        chunk = 8 * self.args.batch_size  # as `vlkd evaluate` has it

        def run():
            run_benchmark(benchmark, model, self.folder / f"{name} {benchmark.task}", batch_size=chunk)

        self.time(name, benchmark.task, run)

    def hand(self, name: str, model: PreTrainedModel, processor: ProcessorMixin, benchmark: Benchmark, prompt: str):
        files = benchmark.shown.files
        if benchmark.task == "vqa":
            items = [(files[each.image_id], each.question) for each in benchmark.questions.values()]
        else:
            items = [(path, prompt) for path in files.values()]
        rest = (self.args.batch_size, self.args.length)
        by_hand(model, processor, items[: self.args.batch_size], *rest)
        self.time(name, benchmark.task, lambda: by_hand(model, processor, items, *rest))

    def time(self, name: str, task: str, run: Callable[[], Any]):
        clock, processor = time.perf_counter(), time.process_time()
        run()
        taken = (time.perf_counter() - clock, time.process_time() - processor)
        self.seconds.setdefault(name, {})[task] = taken


def measure(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Time all ways, one model in memory at a time; see the top of this file."""
    size, watch = SIZES[args.size], Stopwatch(args, folder)
    answering, captioning = benchmarks = make_benchmarks(folder, args.pictures, args.questions)
    settings = {"max_new_tokens": args.length, "min_new_tokens": args.length, "num_beams": 1}
    torch.manual_seed(0)
    ours = VLKDAdapter(*make_vlkd(size), batch_size=args.batch_size, **settings)
    for benchmark in benchmarks:
        watch.evaluation("VLKD, evaluation", ours, benchmark)
    del ours
    for model_class, benchmark in ((BlipForQuestionAnswering, answering), (BlipForConditionalGeneration, captioning)):
        model, processor = make_blip(size, model_class)
        watch.hand("BLIP, by hand", model.eval(), processor, benchmark, "")
        adapter = adapt(model, processor, batch_size=args.batch_size, **settings)
        watch.evaluation("BLIP, evaluation", adapter, benchmark)
    model, processor = make_florence2(size)
    adapter = adapt(model, processor, batch_size=args.batch_size, question_prompt="{question}", **settings)
    for benchmark in benchmarks:
        watch.hand("Florence-2, by hand", model.eval(), processor, benchmark, "<CAPTION>")
        watch.evaluation("Florence-2, evaluation", adapter, benchmark)
    return watch.seconds


def processor_time(taken: dict[str, tuple[float, float]]) -> float:
    return sum(processor for _, processor in taken.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="base")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--questions", type=int, default=3, help="about each picture (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=8, help="tokens of each text (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    with TemporaryDirectory() as folder:
        seconds = measure(args, Path(folder))
    counts = {"vqa": args.pictures * args.questions, "captioning": args.pictures}
    ours = seconds["VLKD, evaluation"]
    table = Table("", "questions/s", "captions/s", "ours, questions", "ours, captions", "over by hand")
    rows = {}
    for name, taken in seconds.items():
        bare = seconds.get(name.replace("evaluation", "by hand")) if "evaluation" in name else None
        row = {f"{task}_per_second": counts[task] / taken[task][0] for task in counts}
        row |= {f"{task}_ours_faster_by": taken[task][1] / ours[task][1] for task in counts}
        row["time_over_by_hand"] = None if bare is None else processor_time(taken) / processor_time(bare)
        shown = [f"{row[f'{task}_per_second']:.2f}" for task in counts]
        shown += [f"{row[f'{task}_ours_faster_by']:.2f} x" for task in counts]
        over = row["time_over_by_hand"]
        table.add_row(name, *shown, "" if over is None else f"{over:.2f}")
        rows[name] = row
    Console().print(table)
    if args.json is not None:
        setup = {name: value for name, value in vars(args).items() if name != "json"}
        setup |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
        setup["transformers"] = transformers.__version__
        args.json.write_text(json.dumps({"setup": setup, "ways": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
