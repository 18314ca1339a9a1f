"""The gate's causal decisions."""

import torch

from sdcom.models.gate import Gate


def _gate() -> Gate:
    gate = Gate(in_channels=12, map_size=3, channels=4, features=16, hidden=10, num_widths=5)
    gate.embed(torch.randn(8, 12, 3, 3))  # in training: moves the statistics off their start
    return gate.eval()


def test_shapes_are_frames_by_widths() -> None:
    gate = _gate()
    embeddings_ND = gate.embed(torch.randn(6, 12, 3, 3))
    logits_BTK, state = gate.decide(embeddings_ND.view(2, 3, 16))
    assert embeddings_ND.shape == (6, 16)
    assert logits_BTK.shape == (2, 3, 5)
    assert state.shape == (1, 2, 10)


def test_frame_by_frame_decisions_equal_the_whole_sequences() -> None:
    gate = _gate()
    embeddings_BTD = gate.embed(torch.randn(14, 12, 3, 3)).view(2, 7, 16)
    whole_BTK, last_state = gate.decide(embeddings_BTD)
    state, steps = None, []
    for step in range(7):
        logits_BTK, state = gate.decide(embeddings_BTD[:, step : step + 1], state)
        steps.append(logits_BTK)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole_BTK, rtol=0, atol=1e-6)
    assert state is not None
    torch.testing.assert_close(state, last_state, rtol=0, atol=1e-6)


def test_a_decision_does_not_depend_on_later_frames() -> None:
    gate = _gate()
    embeddings_BTD = torch.randn(1, 6, 16)
    changed_BTD = embeddings_BTD.clone()
    changed_BTD[:, 4:] = 0
    torch.testing.assert_close(
        gate.decide(embeddings_BTD)[0][:, :4], gate.decide(changed_BTD)[0][:, :4], rtol=0, atol=0
    )


def test_in_evaluation_the_same_frames_get_the_same_decision_whatever_is_beside_them() -> None:
    gate = _gate()
    map_NCHW = torch.randn(5, 12, 3, 3)
    torch.testing.assert_close(gate.embed(map_NCHW)[:2], gate.embed(map_NCHW[:2]), rtol=0, atol=1e-6)
    assert torch.equal(gate.embed(map_NCHW), gate.embed(map_NCHW))
