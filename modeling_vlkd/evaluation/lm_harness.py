"""A VLKD as EleutherAI's lm-eval sees it: a text model that fills masks. It needs `pip install lm-eval`.

lm-eval finds no models in other packages. So its command line starts here, where the model is made known to it:
`python -m modeling_vlkd.evaluation.lm_harness run --model vlkd --model_args pretrained=FOLDER --tasks TASK`.
"""

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from modeling_vlkd.modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.processing_vlkd import VLKDProcessor
from modeling_vlkd.towers_vlkd import load_whole

from .continuations import known_beginning, pad_right, score_continuations
from .errors import EvaluationError
from .harness_prompts import cut_at, infilling_prompt
from .vlkd_model import evaluating


AUTOMATIC = 32  # the batch size for `--batch_size auto`
MOST_NEW = 256  # tokens to write where neither task nor checkpoint says how many; lm-eval's own number


@register_model("vlkd")
class VLKDForLmEval(TemplateLM):
    """Scores and writes texts without pictures, by filling masks.

    A context becomes a prompt with masks (`infilling_prompt`), which the encoder reads. The decoder is given what the
    prompt says before its first mask. What follows there is the continuation: scored token by token, or written. So
    `loglikelihood("Is the sky blue?", " yes")` is log p(" yes" | `Is the sky blue? Answer:<mask><mask>.`, and already
    written `Is the sky blue? Answer:`). `loglikelihood_rolling` is of a text in the place of masks that stand alone.
    A prompt that is too long loses the beginning of its context.

    Args:
        pretrained: folder or Hub id of a checkpoint, or a model.
        processor: of a model that was given as such.
        batch_size: texts at a time.
        device: by default an accelerator if there is one.
        num_masks: masks in each prompt; the checkpoint's number for questions where None.
        num_beams: of `generate_until`; lm-eval's tasks expect greedy search.
    """

    backend = "seq2seq"

    def __init__(
        self,
        pretrained: str | VLKDForConditionalGeneration,
        processor: VLKDProcessor | None = None,
        batch_size: int | str = AUTOMATIC,
        max_batch_size: int | None = None,
        device: str | None = None,
        num_masks: int | None = None,
        num_beams: int = 1,
    ):
        super().__init__()
        if isinstance(pretrained, str):
            self.model = load_whole(VLKDForConditionalGeneration, pretrained, dtype="auto")
            self.processor = VLKDProcessor.from_pretrained(pretrained)
        else:
            self.model, self.processor = pretrained, processor
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        # lm-eval's command gives "cuda" where nobody chose, whether there is one or not.
        chosen = torch.device(device if device and (accelerator or device == "cpu") else accelerator or "cpu")
        self.model, self._device = self.model.to(chosen).eval(), chosen
        self.tokenizer = self.processor.tokenizer
        self.batch_size = int(max_batch_size or AUTOMATIC) if str(batch_size).startswith("auto") else int(batch_size)
        self.num_masks, self.num_beams = num_masks, num_beams

    @property
    def eot_token_id(self) -> int:
        """`</s>`, which ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """`<s>`, which begins a text: what is known where nothing is."""
        return self.tokenizer.bos_token_id

    @property
    def max_length(self) -> int:
        """How many tokens the encoder and the decoder take."""
        return min(self.tokenizer.model_max_length, int(self.model.config.text_config.max_position_embeddings))

    @property
    def tokenizer_name(self) -> str:
        """What tells the cached requests of one tokenizer from those of another."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokenize a text, with `<s>` and `</s>` unless told otherwise."""
        special = True if add_special_tokens is None else add_special_tokens
        return self.tokenizer(string, add_special_tokens=special, verbose=False)["input_ids"]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenize the prompt, with masks, and the continuation."""
        prompt = infilling_prompt(context, self.processor, self.num_masks)
        if prompt.startswith(f"{context.rstrip()}{self.tokenizer.mask_token}"):  # it goes on where the context ends
            text = context[len(context.rstrip()) :] + continuation  # a token of ours begins with the space before it
        else:  # an answer, or what stands for a mask
            text = f" {continuation.lstrip()}"
        return self.tok_encode(prompt), self.tok_encode(text, add_special_tokens=False)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations of contexts; an empty context is a prompt of masks alone."""
        encoded = [
            ((context, text), *self._encode_pair(context, text)) for context, text in (r.args for r in requests)
        ]
        return self._loglikelihood_tokens(encoded, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Score tokens that follow prompts with masks; see [`score_continuations`]."""
        prompts = [
            self.shorten(prompt, len(text), f"The text {written!r:.80}") for (_, written), prompt, text in requests
        ]
        texts = [text for _, _, text in requests]
        mask = self.tokenizer.mask_token_id
        return score_continuations(
            self.model, prompts, texts, mask, batch_size=self.batch_size, progress=not disable_tqdm
        )

    def shorten(self, prompt: list[int], new: int, name: str) -> list[int]:
        """Drop tokens after `<s>` until the encoder can read the prompt, and the decoder write `new` tokens after it.

        Raises:
            EvaluationError: even without its context, there is no room.
        """
        first = len(known_beginning(prompt, self.tokenizer.mask_token_id))
        excess = max(len(prompt), first + new) - self.max_length
        if excess <= 0:
            return prompt
        if excess > first - 1:
            raise EvaluationError(
                f"{name} of {new} tokens is too long; the model takes {self.max_length} with its masks."
            )
        return [prompt[0], *prompt[1 + excess :]]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts, in pieces where they are too long; each piece but the first knows one token before it."""
        empty = self.tok_encode(infilling_prompt("", self.processor, self.num_masks))
        pieces: list[tuple[tuple[str, str], list[int], list[int]]] = []
        counts = []
        for (text,) in (request.args for request in requests):
            tokens = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length - 2, context_len=1)
            found = [make_disjoint_window(window) for window in windows]
            known = [[token for token in before if token != self.prefix_token_id] for before, _ in found]
            pieces += [
                (("", text), [empty[0], *before, *empty[1:]], piece) for before, (_, piece) in zip(known, found)
            ]
            counts.append(len(found))
        scores = iter(self._loglikelihood_tokens(pieces, disable_tqdm=disable_tqdm))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Write what follows contexts, by `num_beams` beams, cut at the task's `until`.

        The period that our prompt has after its masks is dropped at the end of a text. No more tokens are written than
        the task's `max_gen_toks` says, or the checkpoint where it says nothing, or half of what the model can hold.

        Raises:
            EvaluationError: a task that asks for samples.
        """
        mask = self.tokenizer.mask_token
        contexts, settings = [request.args[0] for request in requests], [request.args[1] for request in requests]
        new = [self.new_tokens(each) for each in settings]
        texts = [infilling_prompt(context, self.processor, self.num_masks) for context in contexts]
        prompts = [self.shorten(self.tok_encode(text), count, "A text") for text, count in zip(texts, new)]
        groups = defaultdict(list)  # with known beginnings of one length, so that they are read together
        for place, (prompt, count) in enumerate(zip(prompts, new)):
            groups[len(known_beginning(prompt, self.tokenizer.mask_token_id)), count].append(place)
        said = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, unit="text") as bar:
            for (known, count), places in groups.items():
                for start in range(0, len(places), self.batch_size):
                    batch = places[start : start + self.batch_size]
                    for place, text in zip(batch, self.write([prompts[place] for place in batch], known, count)):
                        whole = text.strip().removesuffix(".") if texts[place].endswith(f"{mask}.") else text
                        said[place] = cut_at(whole, settings[place].get("until") or ())
                    bar.update(len(batch))
        return said

    def new_tokens(self, settings: dict[str, Any]) -> int:
        """Say how many tokens to write for a task's settings, and refuse one that wants samples."""
        if settings.get("do_sample"):
            raise EvaluationError(
                "A task asks for samples (do_sample); a VLKD searches the best text. Give "
                "`--gen_kwargs do_sample=False`."
            )
        wanted = settings.get("max_gen_toks") or settings.get("max_new_tokens")
        return min(int(wanted or self.model.generation_config.max_new_tokens or MOST_NEW), self.max_length // 2)

    def write(self, prompts: list[list[int]], known: int, new: int) -> list[str]:
        """Fill prompts whose known beginnings have the same number of tokens, and return what was written after."""
        tokenizer, settings = self.tokenizer, deepcopy(self.model.generation_config)
        settings.update(num_beams=self.num_beams, max_new_tokens=new, do_sample=False)
        settings.force_prefix, settings.mask_token_id = True, tokenizer.mask_token_id
        input_ids = pad_right(prompts, tokenizer.pad_token_id, self.model.device)
        with evaluating(self.model):
            found = self.model.generate(
                input_ids=input_ids,
                attention_mask=(input_ids != tokenizer.pad_token_id).long(),
                generation_config=settings,
            )
        return tokenizer.batch_decode(found[:, 1 + known :], skip_special_tokens=True)


if __name__ == "__main__":
    cli_evaluate()
