"""MobileNets beside TensorFlow Lite's own interpreter, which computes in 8 bits."""

import pytest
import torch

from tests.conftest import or_skip
from tests.models.test_originals import load
from uaplib import models
from uaplib.data import pictures
from uaplib.models import originals

interpreters = pytest.importorskip("ai_edge_litert.interpreter")
FILES = {
    "mobilenet-v1": ("mobilenet_v1_1.0_224_quant_embedding_extractor", "mobilenet_quant_v1_224_head_layers"),
    "mobilenet-v1-0.75": ("mobilenet_v1_0.75_192_quant",),
    "mobilenet-v1-0.5": ("mobilenet_v1_0.5_160_quant",),
    "mobilenet-v1-0.25": ("mobilenet_v1_0.25_128_quant",),
    "mobilenet-v2": ("mobilenet_v2_1.0_224_quant",),
}
MOST, MEAN = 8, 1.6  # steps of the quantiser by which logits differ, each of about fifty layers having rounded


def interpret(path, values):
    """What the interpreter computes before a softmax, with scale and zero point."""
    interpreter = interpreters.Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(taken["index"], values.reshape(taken["shape"]))
    interpreter.invoke()
    operators = interpreter._get_ops_details()
    index = next((each["inputs"][0] for each in operators if each["op_name"] == "SOFTMAX"), given["index"])
    (quantiser,) = (each["quantization"] for each in interpreter.get_tensor_details() if each["index"] == index)
    return interpreter.get_tensor(index), *quantiser


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_logits_are_those_of_the_interpreter(name):
    model, found = load(name), or_skip(pictures.all_samples)[50::250]
    values = (255 * found.load(models.preprocessing(name)).images).round().to(torch.uint8)
    for value, logits in zip(values, model(values / 255), strict=True):
        known = value.permute(1, 2, 0).contiguous().numpy()
        for path in originals.find(*(f"mobilenet/{file}.tflite" for file in FILES[name])):
            known, scale, zero = interpret(path, known)
        known = (torch.from_numpy(known).flatten()[1:].float() - zero) * scale  # without background
        steps = (logits.clamp(scale * (0 - zero), scale * (255 - zero)) - known).abs() / scale
        assert logits.argmax() == known.argmax()
        assert steps.max() <= MOST
        assert steps.mean() <= MEAN
