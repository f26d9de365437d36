"""Packed tensors and evaluations that are read again."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uaplib.metrics.counts import pack, unpack


@pytest.mark.parametrize(
    ("largest", "dtype"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32"),
                           (2**32, "uint64")]
)  # fmt: skip
def test_counts_take_the_smallest_integers_that_hold_them(largest, dtype):
    values = torch.tensor([[0, largest], [1, 0]])
    assert pack(values)["dtype"] == dtype
    assert pack(values)["shape"] == [2, 2]
    assert torch.equal(unpack(pack(values)), values)


@given(st.lists(st.booleans(), max_size=40))
def test_masks_come_back(mask):
    found = unpack(json.loads(json.dumps(pack(torch.tensor(mask, dtype=torch.bool)))))
    assert found.dtype == torch.bool
    assert found.tolist() == mask


@given(st.lists(st.floats(width=64), max_size=12))
def test_float64_comes_back_bit_by_bit(values):
    tensor = torch.tensor(values, dtype=torch.float64)
    found = unpack(pack(tensor))
    assert found.dtype == torch.float64
    assert torch.equal(found.view(torch.int64), tensor.view(torch.int64))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 3, 5), ()])
def test_shapes_come_back(shape):
    values = torch.arange(math.prod(shape)).reshape(shape)
    assert torch.equal(unpack(pack(values)), values)
    assert unpack(pack(values > 2)).shape == shape


def test_a_transposed_tensor_comes_back():
    values = torch.arange(6).reshape(2, 3).T
    assert torch.equal(unpack(pack(values)), values)


def test_a_mask_of_ten_thousand_images_takes_less_than_two_kilobytes():
    mask = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) < 0.5
    assert len(json.dumps(pack(mask))) < 1800  # a bit an image, four letters for three bytes


def test_matrices_that_are_mostly_zero_take_little_room():
    matrices = torch.diag_embed(torch.arange(11)).expand(233, 11, 11)  # 28 kB
    assert len(json.dumps(pack(matrices))) < 600


@pytest.mark.parametrize("values", [torch.tensor([0, -1]), torch.tensor([0.5]), torch.tensor([1j])])
def test_other_tensors_are_refused(values):
    with pytest.raises(ValueError, match=f"not {values.dtype}"):
        pack(values)


@pytest.mark.parametrize(
    "change", [{"shape": [9]}, {"shape": [7]}, {"dtype": "uint16"}, {"dtype": "colour"}, {"zlib": "AAAA"}, {"zlib": 3}]
)
def test_damaged_values_are_refused(change):
    with pytest.raises(ValueError, match="packed values are damaged"):
        unpack(pack(torch.arange(8)) | change)


def test_a_mask_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="packed values are damaged"):
        unpack(pack(torch.ones(8, dtype=torch.bool)) | {"shape": [9]})
