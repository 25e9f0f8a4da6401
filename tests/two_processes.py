"""Trains tiny models and runs a benchmark in two processes on the CPU: imported once, forked before any computation.

The tests run the same functions in their own process, with batches of twice the size, and compare.
"""

import contextlib
import io
import json
import os
import socket
import sys
from functools import partial
from pathlib import Path

import torch
import torch.multiprocessing
from distill_two_processes import main as distill
from squares import Squares
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_processor
from transformers import Seq2SeqTrainingArguments, Trainer, TrainingArguments

from modeling_vlkd.commands.finetune_glue import main as finetune_glue
from modeling_vlkd.evaluation.running import run_benchmark
from modeling_vlkd.trainers import VLKDDataCollator
from modeling_vlkd.trainers.vqa_finetuning import VQAFinetuningTrainer, WeightedAnswersCollator


def finetune(folder: Path, batch_size: int, with_pictures: bool = True, bridge: bool = True):
    """Train with transformers' own trainer and gradient checkpointing, all other settings its defaults."""
    processor = tiny_processor()
    model = tiny_model(processor)
    model.config.bridge_text_only = bridge
    rows = torch.randn(len(CAPTIONS), 1, DIM, generator=torch.Generator().manual_seed(0))
    examples = [
        {"question": "what is it?", "answer": caption} | ({"image_embeds": row} if with_pictures else {})
        for row, caption in zip(rows, CAPTIONS)
    ]
    args = TrainingArguments(
        folder,
        **{"max_steps": 3, "per_device_train_batch_size": batch_size, "optim": "sgd", "learning_rate": 1e-2},
        **{"logging_steps": 1, "use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"},
        **{"activation_checkpointing": True, "remove_unused_columns": False},
    )
    trainer = Trainer(model, args, train_dataset=examples, data_collator=VLKDDataCollator(processor))
    trainer.train()
    trainer.save_model()
    trainer.save_state()


def finetune_answers(folder: Path, batch_size: int):
    """Train on questions with one to three weighted answers, split unevenly over the processes."""
    processor = tiny_processor()
    model = tiny_model(processor)
    rows = torch.randn(12, 1, DIM, generator=torch.Generator().manual_seed(0))
    said = [{"red": 1.0}, {"red": 0.7, "blue": 0.2, "a box": 0.1}, {"teal": 0.5, "green": 0.5}] * 4
    examples = [
        {"image_embeds": row, "question": "what is it?", "answers": answers} for row, answers in zip(rows, said)
    ]
    args = Seq2SeqTrainingArguments(
        folder,
        **{"max_steps": 3, "per_device_train_batch_size": batch_size, "optim": "sgd", "learning_rate": 1e-2},
        **{"logging_steps": 1, "use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"},
        **{"gradient_accumulation_steps": 2, "remove_unused_columns": False, "label_smoothing_factor": 0.1},
    )
    collate = WeightedAnswersCollator(processor, model)
    trainer = VQAFinetuningTrainer(
        model, args, train_dataset=examples, data_collator=collate, processing_class=processor
    )
    trainer.train()
    trainer.save_model()
    trainer.save_state()


RUNS = {
    "finetuned on answers": finetune_answers,
    "distilled": distill,
    "finetuned": finetune,
    "finetuned on texts": partial(finetune, with_pictures=False),
    "finetuned on texts, without a bridge": partial(finetune, with_pictures=False, bridge=False),
}


def evaluate(folder: Path, rank: int):
    """Run a benchmark, and write down what this process predicted and what it was given in the end."""
    benchmark = Squares(11)
    rows = run_benchmark(benchmark, None, folder, batch_size=2)
    seen = {"asked": benchmark.asked, "rows": rows}
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))


def refuse_grid(folder: Path, rank: int):
    """Ask for a grid, and write down what is said."""
    words = "--glue_task sst2 --checkpoint none --train_data none --eval_data none --grid true --use_cpu true"
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        finetune_glue([*words.split(), "--output_dir", str(folder / "grid")])
    (folder / f"grid-{rank}.txt").write_text(said.getvalue())


def train_all(rank: int, folder: Path, port: int):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, train in RUNS.items():
        train(folder / name, 2)
    evaluate(folder / "evaluated", rank)
    refuse_grid(folder, rank)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (Path(sys.argv[1]), port)
    torch.multiprocessing.start_processes(train_all, arguments, nprocs=2, start_method="fork")
