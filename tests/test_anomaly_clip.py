"""AnomalyCLIP against the official outputs, slow loops, and its own checkpoint."""

import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_tensors import reference, relative_error

from zsad_lib.errors import ZsadError
from zsad_lib.losses import anomaly_clip_loss
from zsad_lib.models import AnomalyCLIP, build_clip
from zsad_lib.models.axial import FRAMES, AxisAttention, ChannelNorm
from zsad_lib.models.text import tokenize

UCF = (
    "Abuse Arrest Arson Assault Burglary Explosion Fighting Normal RoadAccidents Robbery Shooting Shoplifting Stealing"
    " Vandalism"
).split()
SIZES = dict(num_context_tokens=4, num_segments=8, segment_len=4, embed_dim=16, depth=2, heads=4, segment_dropout=0.0)


@cache
def tiny_clip(dim: int = 32):
    torch.manual_seed(0)
    return build_clip(
        "ViT-B-16",
        embed_dim=dim,
        text_width=32,
        text_heads=2,
        text_layers=2,
        vision_image_size=32,
        vision_layers=1,
        vision_width=64,
    )


def small(names=("Abuse", "Normal", "Road_Accidents"), **changes) -> AnomalyCLIP:
    clip = tiny_clip()  # cached: drawn with the first test alone
    torch.manual_seed(1)
    model = AnomalyCLIP(clip, names, "Normal", **(SIZES | changes))
    model.normal_prototype.copy_(torch.randn(32))
    return model


@pytest.mark.data
def test_official_outputs(shared):
    c, tensors, state = reference(shared, "anomalyclip_a0", scale=0.1)
    words = state["net.token_embedding.weight"][tokenize([f"{'X ' * c['n_ctx']}{name}." for name in UCF], 77)]
    state["net.prompt_learner.token_prefix"], state["net.prompt_learner.token_suffix"] = (
        words[:, :1],
        words[:, 1 + c["n_ctx"] :],
    )
    model = small(UCF, concat_similarity=c["concat"]).load_official(state, tensors["ncentroid"]).eval()
    with torch.no_grad():
        assert relative_error(model.text_features(), tensors["text_features"]) < 1e-5
        scored = model.score(tensors["test_input"][0, 0])
        assert relative_error(scored.similarity, tensors["test_similarity"]) < 1e-5
        assert relative_error(scored.anomaly, tensors["test_scores"]) < 1e-5
        assert torch.allclose(scored.class_probs.sum(-1), torch.ones(64))
        labels = tensors["train_labels"]
        outputs = model.train().train_outputs(tensors["train_input"][:, 0], labels)
    assert relative_error(outputs.logits, tensors["train_logits"]) < 1e-5
    assert relative_error(outputs.scores, tensors["train_scores"]) < 1e-5
    for name in ("idx_topk_abn", "idx_topk_nor", "idx_bottomk_abn"):
        assert torch.equal(getattr(outputs, name), tensors[f"train_{name}"])
    assert relative_error(torch.stack(anomaly_clip_loss(outputs, labels, parity=True)), tensors["train_losses"]) < 1e-5

    for names in ([*UCF[1:], UCF[0]], UCF[:8]):
        other = small(names, concat_similarity=c["concat"])
        before = {name: value.clone() for name, value in other.state_dict().items()}
        told = rf"classes are abuse, arrest, .*vandalism, this model's {', '.join(names)}; give"
        with pytest.raises(ZsadError, match=told):
            other.load_official(state, tensors["ncentroid"])
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    del state["net.temporal_model.projection.bias"]
    with pytest.raises(ZsadError, match="missing: net.temporal_model.projection.bias"):
        model.load_official(state, tensors["ncentroid"])


def test_trainable_parameters_of_ucf_crime():
    """10.43 M, as published."""
    model = AnomalyCLIP(build_clip("ViT-B-16", vision_layers=1), UCF, "Normal")
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == pytest.approx(10.43e6, rel=5e-4)


def test_axis_attention_line_by_line():
    torch.manual_seed(0)
    layer = AxisAttention(8, 2, FRAMES).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.double)
    out = layer(x)
    for b in range(2):
        for n in range(3):
            line = F.layer_norm(x[b, :, n].T, (8,), layer.norm.weight, layer.norm.bias)  # [S, C]
            q, (k, v) = layer.to_q(line), layer.to_kv(line).chunk(2, dim=-1)
            heads = [((q[:, h] @ k[:, h].T) / math.sqrt(4)).softmax(-1) @ v[:, h] for h in (slice(0, 4), slice(4, 8))]
            assert torch.allclose(layer.to_out(torch.cat(heads, -1)).T, out[b, :, n])


def test_channel_norm_adds_epsilon_to_the_deviation():
    x = torch.randn(1, 4, 2, 2) * 1e-5
    expected = (x - x.mean(1, keepdim=True)) / (x.numpy().std(1, keepdims=True) + 1e-5)
    assert torch.allclose(ChannelNorm(4)(x), expected, atol=1e-5)


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize(
    "changes", [{"num_segments": 13}, {"num_segments": 12}, {"depth": 1, "num_segments": 20}, {"temporal": False}]
)
def test_only_what_the_loss_reads_gives_the_same_loss_and_gradients(changes, parity):
    """Strips of segments where that is less work (more than 12 for three), at the grid's ends too; else the whole
    grid."""
    labels, found = torch.tensor([2, 0, 0, 1, 1, 1]), []
    for whole in (True, False):
        model = small(**changes).double().train()
        torch.manual_seed(0)
        x = torch.randn(6, model.num_segments * 4, 32, dtype=torch.double)
        x[:, [0, -1]] += 20 * model.directions().sum(0).detach()  # first and last segment are among the top ones
        outputs = model.train_outputs(x, labels, whole)
        loss = torch.stack(anomaly_clip_loss(outputs, labels, parity))
        loss[0].backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    assert {0, model.num_segments - 1} <= set(outputs.idx_topk_nor[0].tolist())
    for a, b in zip(*found):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parity", [False, True])
def test_loss_term_by_term(parity):
    """The same sums in loops over videos, segments and frames."""
    names = ["Abuse", "Fight", "Normal", "Theft"]
    model = small(names).train()
    labels = torch.tensor([3, 0, 2, 2])
    outputs = model.train_outputs(torch.randn(4, 32, 32), labels)
    loss = {name: value.item() for name, value in anomaly_clip_loss(outputs, labels, parity)._asdict().items()}
    S = outputs.logits.detach().numpy().reshape(4, 32, 3).astype(float)
    p = outputs.scores.detach().numpy().reshape(4, 32).astype(float)
    column = {0: 0, 1: 1, 3: 2}
    frames = lambda segments: [s * 4 + f for s in segments.tolist() for f in range(4)]
    log_p = lambda v, t, k: np.log(
        1 - p[v, t] if k == 2 else p[v, t] * np.exp(S[v, t, column[k]]) / np.exp(S[v, t]).sum()
    )
    tops = [(v, t, k) for v, k in ((0, 3), (1, 0)) for t in frames(outputs.idx_topk_abn[v])]
    bottoms = [(v, t, 2) for v in (0, 1) for t in frames(outputs.idx_bottomk_abn[v])]
    normals = [(v, t, 2) for v in (2, 3) for t in frames(outputs.idx_topk_nor[v - 2])]
    videos = [p[:2].ravel()] if parity else [p[0], p[1]]
    expected = {
        "dir_abn": -np.mean([S[v, t, column[k]] for v, t, k in tops]),
        "dir_nor": np.mean([S[v, t].max() for v in (2, 3) for t in range(32)]),
        "topk_abn": -np.mean([log_p(*place) for place in tops]),
        "bottomk_abn": -np.mean([log_p(*place) for place in bottoms]),
        "topk_nor": -np.mean([log_p(*place) for place in normals]),
        "smooth": 8e-4 * sum((b - a) ** 2 for video in videos for a, b in zip(video, video[1:])),
        "sparse": 8e-3 * p[:2].mean(),
    }
    expected["total"] = sum(expected.values())
    assert loss == pytest.approx(expected, rel=1e-4)


def test_certain_scores_keep_the_loss_finite():
    """p(N) = 0 has no logarithm: the published code gives infinity, and training is lost."""
    model, labels = small().train(), torch.tensor([0, 1])
    outputs = model.train_outputs(torch.randn(2, 32, 32), labels)._replace(scores=torch.ones(64))
    assert anomaly_clip_loss(outputs, labels, parity=True).total.isinf()
    assert anomaly_clip_loss(outputs, labels).total.isfinite()


def test_segments_are_chosen_by_their_sums():
    model, labels = small().train(), torch.tensor([2, 0, 1, 1])
    outputs = model.train_outputs(torch.randn(4, 32, 32), labels)
    sums = outputs.logits.detach().view(4, 8, 4, 2).sum(2)
    for video, column in ((0, 1), (1, 0)):
        order = sums[video, :, column].argsort(descending=True)
        assert outputs.idx_topk_abn[video].tolist() == order[:3].tolist()
        assert outputs.idx_bottomk_abn[video].tolist() == order.flip(0)[:3].tolist()
    for video in (0, 1):
        assert outputs.idx_topk_nor[video].tolist() == sums[2 + video].sum(-1).argsort(descending=True)[:3].tolist()


def test_segments_left_out_are_chosen_last():
    """Seven of ten are left out of the choice: tops then differ between draws, and without a choice all are
    eligible."""
    model, labels = small(segment_dropout=0.7).train(), torch.tensor([0, 1])
    x = torch.randn(2, 32, 32)
    tops = {tuple(model.train_outputs(x, labels).idx_topk_abn[0].tolist()) for _ in range(20)}
    assert len(tops) > 5
    everything = small(segment_dropout=1.0).train().train_outputs(x, labels)
    nothing = small(segment_dropout=0.0).train().train_outputs(x, labels)
    assert torch.equal(everything.idx_topk_abn, nothing.idx_topk_abn)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_any_length_is_scored_in_place(length):
    """Every frame is scored once, and where it stands: the similarity needs no neighbours."""
    model = small().eval()
    x = torch.randn(length, 32)
    with torch.no_grad():
        scored = model.score(x)
        assert scored.anomaly.shape == (length,) and scored.class_probs.shape == (length, 3)
        assert torch.allclose(
            scored.similarity, model.selector(x - model.normal_prototype, model.directions()), atol=1e-6
        )


def test_passes_span_the_video():
    """J = 2: pass j reads the j-th run of S frames of each of the N segments."""
    model = small().eval()
    x = torch.randn(64, 32)
    with torch.no_grad():
        by_hand = torch.empty(64)
        for j in range(2):
            chosen = torch.tensor([n * 8 + j * 4 + s for n in range(8) for s in range(4)])
            by_hand[chosen] = model.temporal((x[chosen] - model.normal_prototype).view(1, 8, 4, 32)).flatten()
        assert torch.allclose(model.score(x).anomaly, by_hand, atol=1e-6)


def test_causal_scores_do_not_know_what_comes():
    model = small().eval()
    x = torch.randn(150, 32)
    with torch.no_grad():
        whole = model.score(x, causal=True)
        for length in (1, 4, 5, 33, 64, 149):
            cut = model.score(x[:length], causal=True)
            assert torch.allclose(cut.anomaly, whole.anomaly[:length], atol=1e-6)
            assert torch.allclose(cut.class_probs, whole.class_probs[:length], atol=1e-6)
        assert torch.allclose(whole.similarity, model.score(x).similarity, atol=1e-6)
        early = x[torch.arange(35) % 5][-32:]  # frames 0 to 4, round and round, frame 4 last
        for end, window in ((4, early), (40, x[9:41]), (148, x[117:149])):
            centred = (window - model.normal_prototype).view(1, 8, 4, 32)
            expected = model.temporal(centred)[0, -1, -1]
            assert torch.allclose(whole.anomaly[end : end + 4], expected, atol=1e-6)


def test_checkpoint_holds_prototype_and_classes(tmp_path):
    model = small()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    again = AnomalyCLIP(tiny_clip(), ["Abuse", "Normal", "Road_Accidents"], 1, **SIZES)
    again.load_state_dict(state)
    assert torch.equal(again.normal_prototype, model.normal_prototype)
    other = AnomalyCLIP(tiny_clip(), ["Road_Accidents", "Normal", "Abuse"], 1, **SIZES)
    with pytest.raises(ZsadError, match="Abuse, Normal, Road_Accidents .*, this model's Road_Accidents, Normal, Abuse"):
        other.load_state_dict(state)


def test_what_cannot_be_scored_is_told():
    model = small().eval()
    for x, message in (
        (torch.randn(0, 32), "without frames"),
        (torch.randn(4, 48), "48 numbers per frame, this model's CLIP 32"),
    ):
        with pytest.raises(ZsadError, match=message):
            model.score(x)
    with pytest.raises(ZsadError, match="topk 9 and bottomk 3: choose from 1 to 8"):
        small(topk=9)


def test_bad_classes_and_batches():
    with pytest.raises(ZsadError, match="repeat"):
        small(["Abuse", "Normal", "Abuse"])
    with pytest.raises(ZsadError, match="normal class 'Normal' is none of"):
        small(["Abuse", "Arson"])
    model = small()
    with pytest.raises(ZsadError, match="abnormal videos first"):
        model.train_outputs(torch.randn(2, 32, 32), torch.tensor([1, 0]))
    with pytest.raises(ZsadError, match="31 frames per video, expected 8 x 4"):
        model.train_outputs(torch.randn(2, 31, 32), torch.tensor([0, 1]))
