"""The parts of the program that compresses the loss network, on small random features."""

import torch

from impasto.learning.losses import content_loss, gram_matrix, style_loss
from scripts.compress_loss_network import calibration, choose_channels, refit, schedule, solve_ridge


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_calibrated_features_give_the_content_loss_of_the_original_channels() -> None:
    readout, ours, others = random(10, 4), random(2, 4, 5, 6, seed=1), random(2, 4, 5, 6, seed=2)
    expected = content_loss(expand(readout, ours), expand(readout, others))
    matrix = calibration(readout)
    torch.testing.assert_close(content_loss(expand(matrix, ours), expand(matrix, others)), expected)


def test_calibrated_features_give_the_summed_style_loss_of_the_original_channels() -> None:
    readout, ours, others = random(10, 4), random(2, 4, 5, 6, seed=1), random(2, 4, 5, 6, seed=2)
    expected = style_loss(gram_matrix(expand(readout, ours)), gram_matrix(expand(readout, others)))
    matrix = calibration(readout)
    got = style_loss(gram_matrix(expand(matrix, ours)), gram_matrix(expand(matrix, others)))
    torch.testing.assert_close(got, expected)


def expand(matrix: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    return torch.einsum("dc,nchw->ndhw", matrix, features)


def test_the_chosen_channels_explain_the_others() -> None:
    independent = random(2, 3, 8, 8)
    copies = torch.cat([0.1 * independent, independent, 0.5 * independent], dim=1)
    chosen = choose_channels(iter([copies]), 3)
    assert sorted(index % 3 for index in chosen) == [0, 1, 2]


def test_refitting_finds_the_convolution_that_made_the_targets() -> None:
    weight, bias = random(2, 3, 3, 3, seed=3), random(2, seed=4)
    inputs = random(4, 3, 12, 12)
    targets = torch.nn.functional.conv2d(inputs, weight, bias, padding=1)
    found = refit(iter([inputs]), iter([targets]), generator=torch.Generator().manual_seed(0), positions=2000)
    # the ridge draws the solution a little towards zero
    torch.testing.assert_close(found[0], weight, atol=5e-3, rtol=0)
    torch.testing.assert_close(found[1], bias, atol=5e-3, rtol=0)


def test_the_ridge_is_relative_to_the_scale_of_each_unknown() -> None:
    left = torch.diag(torch.tensor([1e6, 1e-6], dtype=torch.double))
    solution = solve_ridge(left, torch.ones(2, 1, dtype=torch.double))
    torch.testing.assert_close(solution[:, 0], torch.tensor([1e-6, 1e6], dtype=torch.double), rtol=1e-3, atol=0)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    assert schedule(0, 1000) < 0.03
    assert schedule(50, 1000) > 0.99
    assert abs(schedule(500, 1000) - 0.5) < 1e-6
    assert schedule(1000, 1000) < 1e-6
