"""8-bit files by hand, TensorFlow's padding, and files of other networks."""

import math

import pytest
import torch
from torch import nn

from tests.conftest import or_skip
from tests.models.test_originals import load
from uaplib import features
from uaplib.models import mobilenets, originals
from uaplib.models import tflite as reader

tflite = pytest.importorskip("tflite")
flatbuffers = pytest.importorskip("flatbuffers")
V1 = ["mobilenet-v1", "mobilenet-v1-0.75", "mobilenet-v1-0.5", "mobilenet-v1-0.25"]


def layer(outputs, inputs, size, stride=1, low=0.0, high=6.0):
    return reader.Layer(low, high, torch.ones(outputs, inputs, size, size), torch.zeros(outputs), stride)


def file(
    tmp_path, *, operator="CONV_2D", kind_of_options="", channels=1, scales=(0.5,), stride=(1, 1), dilation=1,
    padding=0, activation=3, kind=3,
):  # fmt: skip
    """A file of TensorFlow Lite with one convolution 3 x 3 to one channel, a depthwise one, or another operator."""
    depthwise, builder = operator == "DEPTHWISE_CONV_2D", flatbuffers.Builder(0)
    given = channels if depthwise else 1
    tensors = [
        tensor(builder, "x", (1, 8, 8, channels), (0.5,), 3),
        tensor(builder, "w", (1, 3, 3, channels), scales, kind, 1),
        tensor(builder, "b", (given,), (0.25,), tflite.TensorType.INT32, 2),
        tensor(builder, "y", (1, 8, 8, given), (0.02,), 3),
    ]
    kind_of_options = kind_of_options or ("DepthwiseConv2DOptions" if depthwise else "Conv2DOptions")
    getattr(tflite, f"{kind_of_options}Start")(builder)
    for name, value in {
        "Padding": padding, "StrideH": stride[0], "StrideW": stride[1], "DilationHFactor": dilation,
        "FusedActivationFunction": activation,
    }.items():  # fmt: skip
        getattr(tflite, f"{kind_of_options}Add{name}")(builder, value)
    options = getattr(tflite, f"{kind_of_options}End")(builder)
    inputs, outputs = vector(builder, [0, 1, 2]), vector(builder, [3])
    tflite.OperatorStart(builder)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    tflite.OperatorAddBuiltinOptionsType(builder, getattr(tflite.BuiltinOptions, kind_of_options))
    tflite.OperatorAddBuiltinOptions(builder, options)
    operators = offsets(builder, [tflite.OperatorEnd(builder)])
    tensors = offsets(builder, tensors)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensors)
    tflite.SubGraphAddOperators(builder, operators)
    graphs = offsets(builder, [tflite.SubGraphEnd(builder)])
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, getattr(tflite.BuiltinOperator, operator))
    codes = offsets(builder, [tflite.OperatorCodeEnd(builder)])
    contents = b"", bytes(range(9 * channels)), (8).to_bytes(4, "little") * given
    buffers = []
    for content in map(builder.CreateByteVector, contents):
        tflite.BufferStart(builder)
        tflite.BufferAddData(builder, content)
        buffers.append(tflite.BufferEnd(builder))
    buffers = offsets(builder, buffers)
    tflite.ModelStart(builder)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    path = tmp_path / "net.tflite"
    path.write_bytes(builder.Output())
    return path


def vector(builder, numbers):
    builder.StartVector(4, len(numbers), 4)
    for number in reversed(numbers):
        builder.PrependInt32(number)
    return builder.EndVector()


def offsets(builder, parts):
    builder.StartVector(4, len(parts), 4)
    for part in reversed(parts):
        builder.PrependUOffsetTRelative(part)
    return builder.EndVector()


def tensor(builder, name, shape, scales, kind, buffer=0):
    """A tensor whose zero point is 4, of biases 0."""
    name, shape = builder.CreateString(name), vector(builder, shape)
    builder.StartVector(4, len(scales), 4)
    for scale in scales:
        builder.PrependFloat32(scale)
    scales = builder.EndVector()
    builder.StartVector(8, 1, 8)
    builder.PrependInt64(0 if kind == tflite.TensorType.INT32 else 4)
    zeros = builder.EndVector()
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scales)
    tflite.QuantizationParametersAddZeroPoint(builder, zeros)
    quantiser = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, kind)
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, name)
    tflite.TensorAddQuantization(builder, quantiser)
    return tflite.TensorEnd(builder)


def test_a_number_is_scale_times_value_less_zero_point(tmp_path):
    (found,) = reader.layers(file(tmp_path))
    assert found.weight.tolist() == [[[[-2, -1.5, -1], [-0.5, 0, 0.5], [1, 1.5, 2]]]]  # values 0 to 8
    assert found.bias.tolist() == [2]  # 0.25 * 8
    assert found.stride == 1
    assert (found.low, found.high) == pytest.approx((0, 0.02 * (255 - 4)))  # ReLU6, and 8 bits say no more than 5.02


def test_a_depthwise_convolution_has_one_filter_for_each_channel(tmp_path):
    (found,) = reader.layers(file(tmp_path, operator="DEPTHWISE_CONV_2D", channels=2, activation=0))
    first = torch.tensor([[-2.0, -1, 0], [1, 2, 3], [4, 5, 6]])  # in the file, the channels of a pixel stand together
    assert torch.equal(found.weight, torch.stack([first, first + 0.5]).unsqueeze(1))
    assert found.bias.tolist() == [2, 2]


def test_a_convolution_of_two_channels_has_them_as_inputs(tmp_path):
    (found,) = reader.layers(file(tmp_path, channels=2))
    first = torch.tensor([[-2.0, -1, 0], [1, 2, 3], [4, 5, 6]])
    assert torch.equal(found.weight, torch.stack([first, first + 0.5]).unsqueeze(0))


@pytest.mark.parametrize(("activation", "low"), [(0, 0.02 * -4), (1, 0), (3, 0)])
def test_the_range_is_that_of_activation_and_quantiser(tmp_path, activation, low):
    (found,) = reader.layers(file(tmp_path, activation=activation))
    assert (found.low, found.high) == pytest.approx((low, 5.02))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operator": "TANH"}, "its operator 0 is TANH"),
        ({"kind_of_options": "DepthwiseConv2DOptions"}, "an operator has the options of another"),
        ({"padding": 1}, "padded otherwise than SAME"),
        ({"stride": (1, 2)}, "two strides"),
        ({"dilation": 2}, "dilated"),
        ({"activation": 4}, "activation function 4"),
        ({"scales": (0.5, 0.5)}, "its tensor w has no scale, or one for each channel"),
        ({"scales": ()}, "its tensor w has no scale"),
        ({"kind": 9}, "its tensor w holds other numbers than unsigned 8-bit ones"),
    ],
)
def test_what_is_not_read_is_refused_with_the_files_name(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"net\.tflite is not read here: .*{message}"):
        reader.layers(file(tmp_path, **changes))


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"PK\3\4" * 100)
    with pytest.raises(ValueError, match=r"net\.tflite is no file of TensorFlow Lite"):
        reader.layers(path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = file(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"net\.tflite is (damaged|no file of TensorFlow Lite)"):
        reader.layers(path)


def test_the_package_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "tflite", None)
    with pytest.raises(
        ImportError, match=r"net\.tflite is read by the package tflite: pip install 'uaplib\[imagenet\]'"
    ):
        reader.layers(tmp_path / "net.tflite")


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [(4, 3, 2, 0, 1), (5, 3, 2, 1, 1), (4, 3, 1, 1, 1), (5, 1, 1, 0, 0), (7, 2, 1, 0, 1), (224, 3, 2, 0, 1)],
)
@torch.no_grad()
def test_padding_is_tensorflows(size, kernel, stride, before, after):
    layer = mobilenets.SameConv2d(1, 1, kernel, stride, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.rand(1, 1, size, size)
    found = layer(x)
    assert found.shape[-1] == math.ceil(size / stride)
    assert torch.allclose(found, layer._conv_forward(nn.functional.pad(x, (before, after, before, after)),
                                                      layer.weight, None))  # fmt: skip


def test_height_and_width_are_padded_by_themselves():
    assert mobilenets.SameConv2d(1, 1, 3, 2)(torch.zeros(1, 1, 4, 7)).shape == (1, 1, 2, 4)


def read_all(name):
    files = {"mobilenet-v1-0.25": "mobilenet_v1_0.25_128_quant", "mobilenet-v2": "mobilenet_v2_1.0_224_quant"}
    (path,) = or_skip(originals.find, f"mobilenet/{files[name]}.tflite")
    return reader.layers(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers[:-1], "layer 27 is nothing, and should be a convolution 1001 x 256 x 1 x 1 at stride 1"),
        (lambda layers: [*layers, reader.Layer(0, 6)], "layer 28 is a sum, and should be nothing"),
        (lambda layers: [layer(8, 3, 5, 2), *layers[1:]], "layer 0 is a convolution 8 x 3 x 5 x 5 at stride 2, and"),
        (lambda layers: [layers[0]._replace(stride=1), *layers[1:]], "layer 0 is .* at stride 1, and should be"),
        (lambda layers: [*layers[:-1], layer(1000, 256, 1)], "layer 27 is a convolution 1000 x 256 x 1 x 1"),
        (lambda layers: [], "layer 0 is nothing"),
    ],
)
def test_a_file_of_another_network_is_refused(change, message):
    layers = change(read_all("mobilenet-v1-0.25"))
    with pytest.raises(ValueError, match=f"here.tflite holds another network: {message}"):
        mobilenets.fill(mobilenets.build_v1(0.25), layers, "here.tflite")


def test_neither_version_passes_for_the_other():
    with pytest.raises(ValueError, match="holds another network: layer 0"):
        mobilenets.fill(mobilenets.build_v1(0.25), read_all("mobilenet-v2"), "here.tflite")
    with pytest.raises(ValueError, match="holds another network: layer 0"):
        mobilenets.fill(mobilenets.build_v2(), read_all("mobilenet-v1-0.25"), "here.tflite")


@pytest.mark.parametrize("name", V1)
def test_blocks_of_version_1_are_separable_blocks(name):
    model = load(name)
    image = torch.zeros(1, 3, 64, 64)
    assert features.default_kind(model) == "blocks"
    names = [layer.name for layer in features.choose(model, image, "blocks")]
    assert names == [f"network.features.{number}" for number in range(1, 14)]
    layers = features.choose(model, image, "convolutions")
    assert len(layers) == 27
    found = torch.stack([features.measure(model, torch.rand(1, 3, 64, 64), layers, f) for f in (torch.min, torch.max)])
    assert found.min() >= 0
    assert found.max() == pytest.approx(6, abs=1e-3)  # ReLU6


def test_blocks_of_version_2_are_inverted_residuals():
    model = load("mobilenet-v2")
    image = torch.zeros(1, 3, 64, 64)
    names = [layer.name for layer in features.choose(model, image, "blocks")]
    assert names == [f"network.features.{number}" for number in range(1, 18)]
    assert len(features.choose(model, image, "convolutions")) == 52
    sums = [name for name, module in model.named_modules() if isinstance(module, mobilenets.Sum)]
    assert sums == [f"network.features.{number}.sum" for number in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25])
def test_width_multiplies_the_channels(width):
    first, *blocks = mobilenets.build_v1(width).features
    assert first[0].out_channels == 32 * width
    assert [block.pointwise[0].out_channels for block in blocks][-3:] == [512 * width, 1024 * width, 1024 * width]


def test_what_the_quantiser_cannot_say_is_clamped():
    model = load("mobilenet-v2")
    ranges = [module for module in model.modules() if isinstance(module, nn.Hardtanh)]
    assert len(ranges) == 52 + 10
    assert all(math.isfinite(each.min_val) and math.isfinite(each.max_val) for each in ranges)
    linear = model.network.features[1].project[1]
    assert (linear.min_val, linear.max_val) == pytest.approx((-129 * 0.354413, 126 * 0.354413), rel=1e-5)
