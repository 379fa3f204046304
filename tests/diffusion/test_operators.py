"""Linear operators on images, and the matrices made of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from tabdiff.diffusion.operators import DOWNSAMPLING, average, bicubic, gaussian_blur, operator_matrix, strided


@pytest.fixture
def images():
    return torch.rand(3, 2, 12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", DOWNSAMPLING)
@pytest.mark.parametrize("factor", [2, 4])
def test_matrices_do_what_operators_do(name, factor, images):
    small = DOWNSAMPLING[name](images, factor)
    assert small.shape == (3, 2, 12 // factor, 8 // factor)
    matrix = operator_matrix(lambda x: DOWNSAMPLING[name](x, factor), (2, 12, 8))
    torch.testing.assert_close(images.flatten(1).float() @ matrix.T, small.flatten(1).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)))  # a constant image stays one


def test_operators_are_what_their_names_say(images):
    blocks = images.reshape(3, 2, 6, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(average(images, 2), blocks)
    torch.testing.assert_close(strided(images, 4), images[:, :, ::4, ::4])
    picture = Image.fromarray(images[0, 0].float().numpy(), mode="F")
    shrunk = np.asarray(picture.resize((4, 6), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(bicubic(images, 2)[0, 0].numpy(), shrunk, atol=1e-5)


def test_a_blur_has_its_standard_deviation():
    point = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    point[0, 0, 15, 15] = 1.0
    out = gaussian_blur(point, 1.5)[0, 0]
    place = torch.arange(31, dtype=torch.float64) - 15
    assert out.sum().item() == pytest.approx(1)
    for axis in (0, 1):
        assert (out.sum(axis) * place**2).sum().item() ** 0.5 == pytest.approx(1.5, rel=0.03)
    with pytest.raises(ValueError, match="std must be a number of pixels above 0; got 0"):
        gaussian_blur(point, 0)


@pytest.mark.parametrize("operator", [lambda x: x.clamp(0, 0.5), lambda x: x + 1, lambda x: x.square()])
def test_what_is_not_linear_is_refused(operator):
    with pytest.raises(ValueError, match="operator must be linear"):
        operator_matrix(operator, (1, 4, 4))


@pytest.mark.parametrize("operator", [lambda x: x.mean(), lambda x: x.numpy(), lambda x: x.sum(0)])
def test_what_does_not_measure_each_image_is_refused(operator):
    with pytest.raises(ValueError, match="keeps the first dimension"):
        operator_matrix(operator, (1, 4, 4))
