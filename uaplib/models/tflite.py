"""Convolutions read from 8-bit TensorFlow Lite files (Jacob et al., 2018): a number is scale * (value - zero point)."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

try:
    import tflite
except ImportError:  # it comes with an extra; `layers` says so
    tflite = None

_Options = Any  # tflite's Conv2DOptions, DepthwiseConv2DOptions or AddOptions
_PASSED_OVER = ("AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX")  # who reads a convolutional network has them by itself


class Layer(NamedTuple):
    """A convolution, or a sum of two layers, with the range of what it gives, after its activation.

    weight: (output, input, height, width), of a depthwise convolution (output, 1, height, width); bias: (output,); both
    float32, and None for a sum. Batch normalisation is folded into them. stride: in both directions. low, high: the
    range of the activation (0 to 6 of ReLU6) and of what 8 bits can say.
    """

    low: float
    high: float
    weight: Tensor | None = None
    bias: Tensor | None = None
    stride: int = 1


class _NotRead(ValueError):
    """The file is sound, and holds what is not read here."""


def layers(path: Path) -> list[Layer]:
    """Return the convolutions and sums of a file in the order in which they are computed.

    Raises ImportError without the package tflite, ValueError, naming the file, when it is damaged or of another kind or
    has an operator that is not read here.
    """
    if tflite is None:
        raise ImportError(f"{path.name} is read by the package tflite: pip install 'uaplib[imagenet]'")
    content = path.read_bytes()
    if not tflite.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError(f"{path} is no file of TensorFlow Lite")
    try:
        return list(_layers(tflite.Model.GetRootAsModel(content, 0)))
    except _NotRead as error:
        raise ValueError(f"{path} is not read here: {error}") from error
    except Exception as error:  # whatever is raised by offsets that lead nowhere
        raise ValueError(f"{path} is damaged") from error


def _layers(model: "tflite.Model") -> Iterator[Layer]:
    graph = model.Subgraphs(0)
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        name = tflite.opcode2name(model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode())
        if name in _READERS:
            yield _READERS[name](model, graph, operator)
        elif name not in _PASSED_OVER:
            raise _NotRead(f"its operator {number} is {name}")


def _sum(model: "tflite.Model", graph: "tflite.SubGraph", operator: "tflite.Operator") -> Layer:
    return Layer(*_range(graph.Tensors(operator.Outputs(0)), _options(operator, tflite.AddOptions())))


def _convolution(model: "tflite.Model", graph: "tflite.SubGraph", operator: "tflite.Operator") -> Layer:
    return _any_convolution(model, graph, operator, tflite.Conv2DOptions(), (0, 3, 1, 2))


def _depthwise(model: "tflite.Model", graph: "tflite.SubGraph", operator: "tflite.Operator") -> Layer:
    return _any_convolution(model, graph, operator, tflite.DepthwiseConv2DOptions(), (3, 0, 1, 2))


_READERS = {"ADD": _sum, "CONV_2D": _convolution, "DEPTHWISE_CONV_2D": _depthwise}


def _any_convolution(
    model: "tflite.Model", graph: "tflite.SubGraph", operator: "tflite.Operator", options: _Options, axes: Sequence[int]
) -> Layer:
    """A convolution; axes: where output, input, height and width are in the file."""
    options = _options(operator, options)
    weight, bias = (_real(model, graph.Tensors(operator.Inputs(number))) for number in (1, 2))
    weight = weight.permute(axes).contiguous()
    if options.Padding() != tflite.Padding.SAME and weight.shape[2:] != (1, 1):
        raise _NotRead("a convolution is padded otherwise than SAME")
    if options.StrideH() != options.StrideW() or options.DilationHFactor() * options.DilationWFactor() != 1:
        raise _NotRead("a convolution has two strides, or is dilated")
    return Layer(*_range(graph.Tensors(operator.Outputs(0)), options), weight, bias, options.StrideH())


def _options(operator: "tflite.Operator", options: _Options) -> _Options:
    """The operator's options, of the kind that it must have: those of another would be read without an error."""
    if operator.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, type(options).__name__):
        raise _NotRead("an operator has the options of another")
    table = operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _range(tensor: "tflite.Tensor", options: _Options) -> tuple[float, float]:
    """The least and the largest number that the activation lets through and 8 bits can say."""
    kind, activation = tflite.ActivationFunctionType, options.FusedActivationFunction()
    limits = {kind.NONE: (-math.inf, math.inf), kind.RELU: (0.0, math.inf), kind.RELU6: (0.0, 6.0)}
    if activation not in limits:
        raise _NotRead(f"a layer has the activation function {activation}")
    scale, zero = _quantiser(tensor)
    low, high = limits[activation]
    return max(low, scale * (0 - zero)), min(high, scale * (255 - zero))


def _real(model: "tflite.Model", tensor: "tflite.Tensor") -> Tensor:
    """The numbers of a tensor of the file as real ones."""
    kinds = {tflite.TensorType.UINT8: np.uint8, tflite.TensorType.INT32: np.int32}
    if tensor.Type() not in kinds:
        raise _NotRead(f"its tensor {tensor.Name().decode()} holds other numbers than unsigned 8-bit ones")
    scale, zero = _quantiser(tensor)
    values = np.frombuffer(model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), kinds[tensor.Type()])
    real = scale * (values.astype(np.float64) - zero)
    return torch.from_numpy(real.astype(np.float32)).view(*map(int, tensor.ShapeAsNumpy()))


def _quantiser(tensor: "tflite.Tensor") -> tuple[float, int]:
    """Scale and zero point, of which a tensor has one each."""
    quantiser = tensor.Quantization()
    if quantiser is None or quantiser.ScaleLength() != 1:
        raise _NotRead(f"its tensor {tensor.Name().decode()} has no scale, or one for each channel")
    return quantiser.Scale(0), quantiser.ZeroPoint(0)
