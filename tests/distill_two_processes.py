"""Distills a tiny model; started by `accelerate launch` from the test of the trainer, with one or two processes."""

import sys

import torch
from tiny_training import DIM, tiny_model, tiny_pairs, tiny_processor

from modeling_vlkd.trainers import (
    QuestionSet,
    ReplayCorpus,
    ReplayText,
    VLKDDistillationConfig,
    VLKDDistillationTrainer,
)


def main(folder: str, batch_size: int):
    torch.set_num_threads(1)
    processor = tiny_processor()
    target = processor.tokenizer("is there a circle? Answer: yes.").input_ids
    pairs = tiny_pairs()
    for index, pair in enumerate(pairs):  # no two processes have equally many tokens
        pair["caption"] = " ".join([pair["caption"]] * (index + 1))
    args = VLKDDistillationConfig(
        folder,
        max_steps=3,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=2,
        logging_steps=1,
        optim="sgd",
        learning_rate=0.1,  # so that a wrong gradient of any term is seen in the weights
        warmup_steps=0,
        ttdm_weight=10.0,
        max_grad_norm=0.0,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
    )
    trainer = VLKDDistillationTrainer(
        tiny_model(processor),
        args,
        train_dataset=pairs,
        eval_dataset=tiny_pairs(6),
        processing_class=processor,
        replay=ReplayCorpus([ReplayText(target, context_embeds=torch.ones(DIM)), ReplayText(target)]),
        question_set=QuestionSet(
            ["is there a circle?", "what color is the shape?"] * 2, ["yes"] * 4, torch.ones(4, 1, DIM)
        ),
    )
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
