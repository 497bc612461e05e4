"""A painting is blended with its photo in the way that its option says."""

import pytest
import torch

from impasto.painting.blending import blend, keep_colors, to_oklab


def colour(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, :, None, None]


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (1, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (0.62796, 0.22486, 0.12585)),
        ((0, 0, 1), (0.45201, -0.03246, -0.31153)),
    ],
)
def test_oklab_of_known_colours(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    torch.testing.assert_close(to_oklab(colour(*rgb)), colour(*lab), atol=2e-4, rtol=0)


def test_lightness_is_the_paintings_and_hue_the_photos() -> None:
    torch.manual_seed(0)
    photo, painted = torch.rand(2, 1, 3, 32, 32).unbind()
    kept = to_oklab(keep_colors(photo, painted))
    torch.testing.assert_close(kept[:, 0], to_oklab(painted)[:, 0], atol=0.01, rtol=0)
    before, after = to_oklab(photo)[:, 1:], kept[:, 1:]
    across = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    assert across.abs().max() < 0.003  # parallel: the same hue
    assert (after.norm(dim=1) <= before.norm(dim=1) + 0.005).all()


def test_where_nothing_needs_to_give_the_chroma_is_the_photos() -> None:
    photo = colour(0.6, 0.5, 0.4)
    torch.testing.assert_close(keep_colors(photo, photo), photo, atol=0.003, rtol=0)


def test_a_blend_is_a_line_through_photo_and_painting() -> None:
    photo, painted = colour(0.2, 0.5, 0.9), colour(0.4, 0.5, 0.5)
    torch.testing.assert_close(blend(photo, painted, strength=0.5), colour(0.3, 0.5, 0.7))
    torch.testing.assert_close(blend(photo, painted, strength=1.5), colour(0.5, 0.5, 0.3))
    assert torch.equal(blend(photo, painted, strength=1), painted)
