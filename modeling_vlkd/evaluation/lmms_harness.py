"""A VLKD as lmms-eval sees it (`--model vlkd`). Only lmms-eval imports this file; it needs `pip install lmms-eval`."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate import PartialState
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from torch import Tensor
from tqdm import tqdm

from modeling_vlkd.modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.processing_vlkd import VLKDProcessor
from modeling_vlkd.towers_vlkd import load_whole

from .continuations import score_continuations
from .errors import EvaluationError
from .harness_prompts import cut_at, question_of
from .questions import open_picture, picture_key
from .vlkd_model import VLKDAdapter


WINDOW = 1024  # requests at a time; no more pictures than a batch are in memory at once
NONE = -1  # the index of the picture of a request that has none
KEPT = 4096  # pictures whose rows are kept: 12 MB of ViT-L/14's one row each, 1.8 GB of RN50x16's 145 rows


class SeenPictures:
    """The rows V of the pictures that were seen last, so that each is looked at once for all that is asked about it.

    Args:
        limit: how many to keep.
    """

    def __init__(self, adapter: VLKDAdapter, limit: int = KEPT):
        self.adapter, self.limit = adapter, limit
        self.kept: dict[str | bytes, Tensor] = {}

    def look(self, pictures: Iterable[tuple[Any, str]]) -> tuple[Tensor, list[int]]:
        """Look at the new ones among pictures.

        Args:
            pictures: pairs of a picture and what messages call it.

        Returns:
            The rows of those that differ, `(pictures, rows, dim)`, and for each one given which of them it is.
        """
        keys: list[str | bytes] = []
        new: list[str | bytes] = []

        def unseen() -> Iterator[Any]:
            pending = set()
            for picture, place in pictures:
                key, opened = picture_key(picture, place)
                keys.append(key)
                if key not in self.kept and key not in pending:
                    pending.add(key)
                    new.append(key)
                    yield opened or open_picture(picture, place)

        for key, row in zip(new, self.adapter.look(unseen())):
            self.kept[key] = row.clone()  # a view would keep all rows of its batch
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        rows = torch.stack([self.kept[key] for key in places]) if places else torch.empty(0)
        for key in list(self.kept)[: max(0, len(self.kept) - self.limit)]:
            del self.kept[key]
        return rows, [places[key] for key in keys]


class VLKDForLmmsEval(lmms):
    """Answers questions about one picture each, and captions pictures.

    A prompt is turned into the model's own by `question_of`. How an answer is searched is the checkpoint's affair or
    that of `--model_args`: of a task's `generation_kwargs`, only `until` counts, because the others (`max_new_tokens`,
    `num_beams`, `temperature` 0) are set for chat models.

    Args:
        pretrained: folder or Hub id of a checkpoint.
        batch_size: questions and pictures at a time.
        device: by default the accelerator of this process, or the CPU.
        num_masks: masks in each prompt; the checkpoint's own where None.
        generate_kwargs: for `generate()`, such as `num_beams=1` or `force_prefix=False`.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 32,
        device: str | None = None,
        num_masks: int | None = None,
        **generate_kwargs: Any,
    ):
        super().__init__()
        self._device = PartialState().device if device is None else torch.device(device)
        model = load_whole(VLKDForConditionalGeneration, pretrained, dtype="auto").to(self._device).eval()
        processor = VLKDProcessor.from_pretrained(pretrained)
        self.adapter = VLKDAdapter(model, processor, int(batch_size), num_masks, **generate_kwargs)
        self.num_masks, self.seen = num_masks, SeenPictures(self.adapter)

    @property
    def device(self) -> torch.device:
        """Where the model is; the evaluator asks for it when there are several processes."""
        return self._device

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer or caption; see [`VLKDForLmmsEval`].

        Raises:
            EvaluationError: a request with more than one picture, a caption without one, or one that asks for samples.
        """
        texts: list[str] = []
        for window in windows(requests, self.rank):
            ends = [until_of(request) for request in window]
            questions = [question_of(request.args[0]) for request in window]
            rows, pictures = self.look(window)
            said: dict[int, str] = {}
            for seeing in (True, False):
                asked = [i for i, each in enumerate(questions) if each and (pictures[i] != NONE) == seeing]
                about = [pictures[place] for place in asked] if seeing else None
                answers = self.adapter.answer(
                    rows if seeing else None, [questions[place] or "" for place in asked], about
                )
                said |= {place: answer.text for place, answer in zip(asked, answers)}
            captioned = [place for place in range(len(window)) if place not in said]
            if blind := [place for place in captioned if pictures[place] == NONE]:
                raise EvaluationError(f"{name_of(window[blind[0]])} asks for a caption, but it has no picture.")
            captions = self.adapter.caption(rows[[pictures[place] for place in captioned]]) if captioned else []
            said |= {place: caption.text for place, caption in zip(captioned, captions)}
            texts += [cut_at(said[place], until) for place, until in enumerate(ends)]
        return texts

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Score continuations of our question prompts; see [`score_continuations`].

        Returns:
            For each, the *negative* logarithm of its probability, and whether it is what greedy search would write.
            lmms-eval 0.7 wants a loss: its multiple choice takes the smallest.
        """
        processor, losses = self.adapter.processor, []
        for window in windows(requests, self.rank):
            questions = [question_of(request.args[0]) or request.args[0] for request in window]
            prompts = processor.tokenizer(processor.question_prompts(questions, self.num_masks))["input_ids"]
            texts = [" " + self.continuation_of(request).strip() for request in window]
            continuations = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
            rows, pictures = self.look(window)
            found: dict[int, tuple[float, bool]] = {}
            for seeing in (True, False):
                places = [place for place, each in enumerate(pictures) if (each != NONE) == seeing]
                scores = score_continuations(
                    self.adapter.model,
                    [prompts[place] for place in places],
                    [continuations[place] for place in places],
                    processor.tokenizer.mask_token_id,
                    rows if seeing else None,
                    [pictures[place] for place in places] if seeing else None,
                    self.adapter.batch_size,
                )
                found |= dict(zip(places, scores))
            losses += [(-found[place][0], found[place][1]) for place in range(len(window))]
        return losses

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refuse conversations, which the model was not trained on."""
        raise EvaluationError(
            f"{name_of(requests[0])} is a conversation of several rounds; a VLKD answers single questions."
        )

    def look(self, window: list[Instance]) -> tuple[Tensor, list[int]]:
        """Look at the pictures of requests.

        Returns:
            Rows, `(pictures, rows, dim)`, and for each request which of them it is about, or NONE.
        """
        about: list[int] = []  # requests that have a picture

        def pictures() -> Iterator[tuple[Any, str]]:
            for place, request in enumerate(window):
                for picture in self.pictures_of(request):
                    about.append(place)
                    yield picture, name_of(request)

        rows, index = self.seen.look(pictures())
        which = dict(zip(about, index))
        return rows, [which.get(place, NONE) for place in range(len(window))]

    def pictures_of(self, request: Instance) -> list[Any]:
        """Give the picture of a request, or none for a task of text alone."""
        _, _, doc_to_visual, doc_id, task, split = request.args
        pictures = list(doc_to_visual(self.task_dict[task][split][doc_id]) or []) if doc_to_visual else []
        if len(pictures) > 1:
            raise EvaluationError(
                f"{name_of(request)} has {len(pictures)} pictures; a VLKD looks at one. Leave this task out."
            )
        return pictures

    def continuation_of(self, request: Instance) -> str:
        """Give the text to score; a task of type `loglikelihood` gives a function of the example for it."""
        _, continuation, _, doc_id, task, split = request.args
        return continuation(self.task_dict[task][split][doc_id]) if callable(continuation) else continuation


def windows(requests: list[Instance], rank: int) -> Iterator[list[Instance]]:
    """Yield requests piece by piece, with a progress bar."""
    for request in requests:
        if len(request.args) != 6:  # two, from `acc_mutual_info`
            raise EvaluationError(
                f"{name_of(request)} asks how likely a text is without its question, as `acc_mutual_info` does; a "
                "VLKD only fills prompts. Take `acc` or `acc_norm`."
            )
    with tqdm(total=len(requests), unit="request", disable=rank != 0) as bar:
        for start in range(0, len(requests), WINDOW):
            window = requests[start : start + WINDOW]
            yield window
            bar.update(len(window))


def name_of(request: Instance) -> str:
    return f"Example {request.doc_id} of the task {request.task_name}"


def until_of(request: Instance) -> list[str]:
    """Return the texts that end an answer, and refuse a task that wants samples."""
    settings = request.args[1]
    if settings.get("do_sample"):
        raise EvaluationError(
            f"{name_of(request)} asks for samples (do_sample); a VLKD searches the best answer. Give "
            "`--gen_kwargs do_sample=False`."
        )
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)
