"""CLIP builder, the cut vocabulary, and the encoding of captions."""

import logging

import open_clip
import pytest
import torch
from reference_tensors import reference, relative_error

from zsad_lib.errors import ZsadError
from zsad_lib.models.text import UNKNOWN, Vocabulary, build_clip, encode_captions, tokenize

CAPTIONS = ["a man walks", "a man runs fast", "two people walk", "a man walks"]
SMALL = dict(
    embed_dim=16, text_width=32, text_heads=2, text_layers=2, text_context_length=12,
    vision_width=64, vision_layers=1, vision_patch_size=8, vision_image_size=(16, 24),
)  # fmt: skip


def activation(clip) -> type:
    return type(clip.transformer.resblocks[0].mlp.gelu)


@pytest.mark.data
def test_official_clip_text_tower(shared):
    """Features of the official CLIP text tower (AnomalyCLIP's reference: learned vectors before each class name).

    OpenAI's QuickGELU is the default without weights; with plain GELU the features must be off, or this could not fail.
    """
    config, tensors, state = reference(shared, "anomalyclip_a0", scale=0.1)
    c = config["clip"]
    names = "Abuse Arrest Arson Assault Burglary Explosion Fighting Normal RoadAccidents Robbery Shooting Shoplifting"
    names = [*names.split(), "Stealing", "Vandalism"]
    places = " ".join("X" * config["n_ctx"])
    tokens = tokenize([f"{places} {name}." for name in names], c["context_length"])
    errors = {}
    for overrides in ({}, {"quick_gelu": False}):
        clip = build_clip(
            "ViT-B-16", embed_dim=c["embed_dim"], text_width=c["transformer_width"], text_heads=c["transformer_heads"],
            text_layers=c["transformer_layers"], vision_width=64, vision_layers=1, **overrides,
        )  # fmt: skip
        own = {k.removeprefix("net.text_encoder."): v for k, v in state.items() if k.startswith("net.text_encoder.")}
        own["token_embedding.weight"] = state["net.token_embedding.weight"]
        missing, unexpected = clip.load_state_dict(own, strict=False)
        assert not unexpected and all(k.startswith("visual.") or k == "logit_scale" for k in missing)
        with torch.no_grad():
            x = clip.token_embedding(tokens)
            x[:, 1 : 1 + config["n_ctx"]] = state["net.prompt_learner.ctx"]
            x = clip.transformer(x + clip.positional_embedding, attn_mask=clip.attn_mask)
            x = clip.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)] @ clip.text_projection
        errors[bool(overrides)] = relative_error(x, tensors["text_features"])
    assert errors[False] < 1e-5 and errors[True] > 1e-4


def test_small_stand_in():
    words = Vocabulary.of(CAPTIONS)
    clip = build_clip("ViT-B-32", text_vocab_size=len(words), **SMALL)
    assert not clip.training and clip.token_embedding.weight.shape == (len(words), 32)
    assert clip.encode_image(torch.randn(2, 3, 16, 24)).shape == (2, 16)
    vectors = encode_captions(clip, CAPTIONS, words, batch=2)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    assert torch.equal(vectors[0], vectors[3]) and not torch.allclose(vectors[0], vectors[1])
    # unbatched, straight through open_clip: the same vectors in the same order
    for caption, vector in zip(CAPTIONS, vectors):
        expected = clip.encode_text(tokenize([caption], 12, words), normalize=True)[0]
        torch.testing.assert_close(vector, expected)


def test_cut_vocabulary_gives_the_full_models_vectors():
    """With the rows of the full token table copied to their compact places, nothing changes."""
    full = build_clip("ViT-B-32", **SMALL)
    words = Vocabulary.of(CAPTIONS)
    cut = build_clip("ViT-B-32", text_vocab_size=len(words), **SMALL)
    state = full.state_dict()
    rows = [0, 0, *words.ids, 49406, 49407]
    state["token_embedding.weight"] = state["token_embedding.weight"][rows]
    cut.load_state_dict(state)
    torch.testing.assert_close(encode_captions(cut, CAPTIONS, words), encode_captions(full, CAPTIONS))


@pytest.mark.parametrize(
    "name, overrides, quick",
    [("ViT-B-32", {}, True), ("ViT-B-32-quickgelu", {}, True), ("ViT-B-32", {"quick_gelu": False}, False)],
)
def test_activation_without_weights(name, overrides, quick):
    small = SMALL | {"text_vocab_size": 50}
    expected = open_clip.transformer.QuickGELU if quick else torch.nn.GELU
    assert activation(build_clip(name, **small, **overrides)) is expected


@pytest.mark.parametrize("tag, quick", [("openai", True), ("laion2b_s34b_b88k", False)])
def test_pretrained_tag_decides_the_activation(monkeypatch, tag, quick):
    """Nothing is downloaded: what goes to open_clip is looked at."""
    seen = {}
    monkeypatch.setattr(open_clip, "create_model", lambda *a, **k: seen.update(k, args=a) or torch.nn.Identity())
    build_clip("ViT-B-16", pretrained=tag)
    assert seen["args"] == ("ViT-B-16", tag) and seen["quick_gelu"] is quick


def test_weight_file(tmp_path):
    source = build_clip("ViT-B-32", **SMALL, text_vocab_size=50)
    torch.save(source.state_dict(), tmp_path / "clip.pt")
    copy = build_clip("ViT-B-32", str(tmp_path / "clip.pt"), **SMALL, text_vocab_size=50)
    tokens = torch.randint(50, (2, 12))
    torch.testing.assert_close(copy.encode_text(tokens), source.encode_text(tokens))
    with pytest.raises(ZsadError, match="CLIP ViT-B-32, .*clip.pt"):
        build_clip("ViT-B-32", str(tmp_path / "clip.pt"), **SMALL, text_vocab_size=60)


@pytest.mark.parametrize(
    "args, overrides, message",
    [
        (("ViT-B-23",), {}, "unknown CLIP architecture 'ViT-B-23'; did you mean 'ViT-B-"),
        (("ViT-B-32",), {"text_widht": 64}, "unknown CLIP override 'text_widht'; did you mean 'text_width'"),
        (("ViT-B-32",), {"vision_heads": 2}, "unknown CLIP override 'vision_heads'; did you mean 'vision_"),
        (("ViT-B-32", "no_such_tag"), SMALL | {"text_vocab_size": 50}, "no_such_tag"),
        (("ViT-B-32",), SMALL | {"text_vocab_size": 50, "text_heads": 5}, "text_heads"),
    ],
)
def test_wrong_arguments(args, overrides, message):
    with pytest.raises(ZsadError, match=message) as error:
        build_clip(*args, **overrides)
    assert "\n" not in str(error.value)


def test_vocabulary_ids():
    words = Vocabulary.of(CAPTIONS)
    tokens = open_clip.tokenize(CAPTIONS, 12)
    compact = words.compact(tokens)
    assert compact.max() == len(words) - 1 and torch.equal(compact.argmax(-1), tokens.argmax(-1))  # end is largest
    assert torch.equal(compact == 0, tokens == 0)
    back = torch.tensor([0, 0, *words.ids, 49406, 49407])
    assert torch.equal(back[compact], tokens)
    assert Vocabulary(list(words.ids)) == words and Vocabulary([*words.ids, 0, 49407]) == words  # as read from JSON
    with pytest.raises(ZsadError, match="49407"):
        Vocabulary((5, 60000))


def test_unknown_words_are_named(caplog):
    words = Vocabulary.of(CAPTIONS)
    with caplog.at_level(logging.WARNING):
        compact = tokenize(["a zebra walks"], 12, words)
    assert "zebra" in caplog.text and (compact == UNKNOWN).sum() == 1


def test_long_captions_are_cut_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        tokens = tokenize(["a man", "a man walks", "a man walks and runs"], 5)
    assert "1 of 3 captions cut to 5 tokens" in caplog.text
    assert torch.equal(tokens, open_clip.tokenize(["a man", "a man walks", "a man walks and runs"], 5))


def test_wrong_captions():
    words = Vocabulary.of(CAPTIONS)
    clip = build_clip("ViT-B-32", text_vocab_size=len(words), **SMALL)
    for captions in ([], "a man walks"):
        with pytest.raises(ZsadError, match="list of at least one text"):
            encode_captions(clip, captions, words)
    with pytest.raises(ZsadError, match="the vocabulary 49408"):
        encode_captions(clip, CAPTIONS)
