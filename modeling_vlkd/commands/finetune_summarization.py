"""`vlkd finetune --task summarization`: trains a distilled model to summarize texts, as those of XSum."""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import set_seed
from transformers.trainer_utils import unwrap_peft_model

from modeling_vlkd.evaluation.summarization import GENERATION, Document, read_documents
from modeling_vlkd.evaluation.text_models import read_limit
from modeling_vlkd.evaluation.text_tables import DEV, TRAIN
from modeling_vlkd.publishing.provenance import Source
from modeling_vlkd.trainers import VLKDDataCollator
from modeling_vlkd.trainers.finetuning import FinetuningTrainer
from modeling_vlkd.trainers.summaries import SummaryEvaluation
from modeling_vlkd.trainers.trained_on import TrainedOn

from .finetuning_run import (
    FinetuneArguments,
    Metric,
    callbacks_of,
    evaluation_source,
    facts_of,
    load_to_finetune,
    make_parser,
    parse,
    run,
)


METRIC = "rougeL"
EXAMPLES = """\
  vlkd finetune --task summarization --checkpoint my-vlkd --train_data train.jsonl --eval_data dev.jsonl
  vlkd finetune --task summarization --checkpoint my-vlkd --train_data EdinburghNLP/xsum \\
      --eval_data EdinburghNLP/xsum --config trainers/recipes/xsum.yaml
"""


@dataclass(kw_only=True)
class SummarizationArguments(FinetuneArguments):
    """The documents, and how they are read."""

    train_data: str = field(
        metadata={
            "help": "Documents with summaries to train on: CSV, JSON lines, parquet, what `datasets` has saved, or a "
            "Hub id such as EdinburghNLP/xsum."
        }
    )
    eval_data: str | None = field(default=None, metadata={"help": "The same to evaluate on, by ROUGE."})
    train_split: str = field(default=TRAIN, metadata={"help": "Split of --train_data that is trained on."})
    eval_split: str = field(default=DEV, metadata={"help": "Split of --eval_data that is evaluated on."})
    document_column: str = field(default="document", metadata={"help": "Column of the texts to summarize."})
    summary_column: str = field(default="summary", metadata={"help": "Column of the summaries."})
    max_text_length: int | None = field(
        default=None, metadata={"help": "Longer documents are cut, in tokens; by default to what the model can read."}
    )
    bridge_text_only: bool | None = field(
        default=None,
        metadata={
            "help": "Whether texts go through CLIP's space on their way to the decoder (true), or straight (false); "
            "by default as the checkpoint says."
        },
    )


def main(argv: list[str]) -> int:
    parser = make_parser(
        SummarizationArguments,
        "summarization",
        "--checkpoint MODEL --train_data DATA [--eval_data DATA]",
        "Trains a distilled model to summarize texts, by default as BART was trained on XSum.",
        EXAMPLES,
        learning_rate=3e-5,
        max_steps=15_000,
        warmup_steps=500,
        label_smoothing_factor=0.1,
        weight_decay=0.01,
        max_grad_norm=0.1,
        generation_num_beams=GENERATION["num_beams"],
    )
    arguments, card, training, checkpoint = parse(parser, argv, METRIC, ["eval_data"])
    train = read(arguments, arguments.train_data, arguments.train_split, TRAIN)
    held_out = read(arguments, arguments.eval_data, arguments.eval_split, DEV) if arguments.eval_data else None
    trained_on = TrainedOn.of_texts(arguments.train_data, ([each.text, each.summary] for each in train))
    if checkpoint is not None:
        trained_on.refuse_other(checkpoint)

    set_seed(training.seed)
    model, processor = load_to_finetune(arguments, training)
    if arguments.bridge_text_only is not None:
        model.config.bridge_text_only = arguments.bridge_text_only
    settings = GENERATION | {"num_beams": training.generation_num_beams}
    unwrap_peft_model(model).generation_config.update(**settings)  # the model that is saved summarizes so by itself
    limit = read_limit(model, processor.tokenizer)
    length = limit if arguments.max_text_length is None else min(arguments.max_text_length, limit)
    evaluation = None
    if held_out:
        evaluation = SummaryEvaluation(held_out, processor.tokenizer, length, settings)
    # The collator needs the columns `text` and `target`, which are no arguments of the model.
    training.remove_unused_columns = False
    note = f"{trained_on.examples} documents"
    facts = facts_of(
        arguments,
        card,
        argv,
        trained_on,
        [Source.find("documents with summaries", arguments.train_data, "dataset", note)],
        evaluation_source(
            arguments.eval_data,
            arguments.train_data,
            "dataset",
            same_split=arguments.eval_split == arguments.train_split or Path(arguments.train_data).is_file(),
        ),
    )
    facts.tuned_on = "documents and their summaries"
    facts.settings["bridge_text_only"] = model.config.bridge_text_only
    trainer = FinetuningTrainer(
        model,
        training,
        data_collator=VLKDDataCollator(processor, model, max_text_length=length),
        train_dataset=examples(train),
        eval_dataset=examples(held_out) if held_out else None,
        evaluation=evaluation,
        processing_class=processor,
        callbacks=callbacks_of(arguments),
        run_facts=facts,
    )
    metric = Metric(METRIC, f"{{:.2f}} is the {METRIC} of {len(held_out or [])} summaries")
    return run(trainer, arguments, checkpoint, metric, example_of(training.output_dir))


def read(arguments: SummarizationArguments, source: str, split: str, default: str) -> list[Document]:
    return read_documents(source, split, default, arguments.document_column, arguments.summary_column)


def examples(documents: list[Document]) -> list[dict[str, str]]:
    return [{"text": document.text, "target": document.summary} for document in documents]


def example_of(output_dir: str) -> str:
    return (
        f'python -c "import modeling_vlkd; from transformers import AutoModelForImageTextToText as M, AutoProcessor '
        f"as P; n = {output_dir!r}; p = P.from_pretrained(n); print(p.batch_decode(M.from_pretrained(n).generate("
        "**p(text=['a text'], return_tensors='pt')), skip_special_tokens=True))\""
    )
