import pytest
import torch
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_pairs, tiny_processor
from transformers.modeling_outputs import ModelOutput

from modeling_vlkd.trainers import VLKDDistillationCollator, VLKDTask


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def test_terms_are_those_of_a_straight_line_version(processor):
    model = tiny_model(processor)
    batch = VLKDDistillationCollator(processor)(tiny_pairs(4))
    terms = VLKDTask(model)({}, **batch)

    states = model.model.language_model.encoder(batch["clean_input_ids"], batch["clean_attention_mask"])
    sentences = states.last_hidden_state[:, 0] @ model.model.text_projection.weight.T  # (pairs, dim)
    texts, images, teacher = (
        rows / rows.norm(dim=-1, keepdim=True)
        for rows in (sentences, batch["image_embeds"][:, 0], batch["text_teacher_embeds"])
    )
    torch.testing.assert_close(terms["ttdm"], (texts - teacher).square().mean())
    similarity = model.model.logit_scale.exp() * images @ texts.T
    to_text, to_image = similarity.log_softmax(dim=1).diagonal(), similarity.log_softmax(dim=0).diagonal()
    torch.testing.assert_close(terms["itcl"], -(to_text.mean() + to_image.mean()) / 2)
    fed = {name: batch[name] for name in ("input_ids", "attention_mask", "image_embeds", "labels")}
    torch.testing.assert_close(terms["icti"], model(**fed).loss)


def test_a_counted_term_is_a_share_of_the_whole_update(processor):
    task, batch = VLKDTask(tiny_model(processor)), VLKDDistillationCollator(processor)(tiny_pairs(4))
    [count] = task.counts(batch).values()
    assert count == (batch["labels"] != -100).sum()
    alone, counted = task({}, **batch), task({"icti": 3 * count.float()}, **batch)
    torch.testing.assert_close(counted["icti"], alone["icti"] / 3)
    assert torch.equal(counted["ttdm"], alone["ttdm"])


def test_without_ttdm_no_teacher_is_needed(processor):
    pairs = [{name: pair[name] for name in ("image_embeds", "caption")} for pair in tiny_pairs(4)]
    batch = VLKDDistillationCollator(processor)(pairs)
    assert set(VLKDTask(tiny_model(processor), with_ttdm=False)({}, **batch)) == {"itcl", "icti"}
    with pytest.raises(ValueError, match="TTDM needs `text_teacher_embeds`"):
        VLKDTask(tiny_model(processor))({}, **batch)


class Says(VLKDTask):
    """Gives outputs that were put in its mouth."""

    def run_student(self, batch):
        return batch["outputs"]


def test_infilling_is_a_mean_over_tokens_and_the_rest_over_pairs(processor):
    """Two batches, of one pair with one token and of two with two: by logits of 0, each token costs log 8."""
    task, parts = Says(tiny_model(processor)), []
    for size, length in ((1, 1), (2, 2)):
        labels = torch.zeros(size, 3, dtype=torch.long)
        labels[:, length:] = -100
        logits = torch.zeros(size, 3, 8)
        logits[..., 0] = 0.0 if size == 1 else 1e4  # the second batch is certain
        embeds = torch.eye(4)[:size]
        outputs = ModelOutput(logits=logits, image_embeds=embeds, text_embeds=embeds, logit_scale=torch.tensor(1e4))
        batch = {"labels": labels, "clean_input_ids": labels.clamp(min=0), "image_embeds": embeds[:, None]}
        batch |= {"clean_attention_mask": torch.ones_like(labels), "outputs": outputs}
        parts.append(task.measure(**batch, text_teacher_embeds=-embeds))  # the teacher says the opposite
        assert task.average(parts[-1])["ttdm"] == pytest.approx(1.0)  # 2 (1 - cosine) / dim
    measured = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    terms, metrics = task.average(measured), task.metrics(measured)
    assert terms["icti"].item() == pytest.approx(torch.tensor(8.0).log().item() / 5, rel=1e-6)
    assert terms["itcl"].item() == pytest.approx(0.0, abs=1e-6)
    assert (metrics["retrieval_pairs"], metrics["retrieval_pictures"]) == (3, 2)


def test_what_is_measured_averages_to_the_terms(processor):
    task = VLKDTask(tiny_model(processor))
    batch = VLKDDistillationCollator(processor)(tiny_pairs(5))
    terms, averages = task({}, **batch), task.average(task.measure(**batch))
    assert terms.keys() == averages.keys()
    for name in terms:
        torch.testing.assert_close(averages[name], terms[name])


def test_outputs_and_terms_are_fp32_in_mixed_precision(processor):
    task = VLKDTask(tiny_model(processor))
    batch = VLKDDistillationCollator(processor)(tiny_pairs(4))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = task.run_student(batch)
        terms = task({}, **batch)
    assert outputs.text_embeds.dtype == outputs.logits.dtype == torch.float32
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_the_bridge_is_what_is_new(processor):
    task = VLKDTask(tiny_model(processor))
    names = {parameter: name for name, parameter in task.student.named_parameters()}
    found = {names[parameter].removeprefix("model.") for parameter in task.new_parameters()}
    matrices = {f"{name}.weight" for name in ("text_projection", "text_to_decoder", "image_to_decoder")}
    assert found == matrices | {"logit_scale"}
    assert task.own_state() == {}


def test_rows_that_are_kept_pass_a_trained_tower_by(processor):
    model = tiny_model(processor)
    model.config.freeze_vision_tower = False
    batch = VLKDDistillationCollator(processor)([{"image_embeds": torch.ones(1, DIM), "caption": CAPTIONS[0]}])
    with pytest.raises(ValueError, match=r"freeze_vision_tower=False.*keep_pixels"):
        VLKDTask(model, with_ttdm=False)({}, **batch)


def test_a_term_that_a_subclass_adds_is_evaluated_too(processor):
    class WithAnother(VLKDTask):
        def terms_of(self, outputs, batch, counts):
            return super().terms_of(outputs, batch, counts) | {"another": outputs.text_embeds.square().sum()}

    task = WithAnother(tiny_model(processor))
    batch = VLKDDistillationCollator(processor)(tiny_pairs(3))
    averages = task.average(task.measure(**batch))
    assert averages["another"].item() == pytest.approx(3.0)  # unit vectors
    assert set(averages) == {"ttdm", "itcl", "icti", "another"}
