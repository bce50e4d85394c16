"""Quantization-aware training: a float PyTorch network becomes one that trains with its own quantization errors.

Belongs here: quantizers in a traced network (`network`), training methods for them, the loop around them (`training`),
the ONNX file that comes out.
Does not belong here: the quantizer itself and quantized layers (`netsuke.nn`), calibration without training
(`netsuke.methods.quantize`), running programs.
Contract, by the record's tag:
  rules   apply(config) -> Rules: which quantizers weights and activations get
  hook    apply(network, config) -> Hook: changes gradients or steps of the loop; network is a QatNetwork
The result is the ONNX graph every other tool reads: QuantizeLinear/DequantizeLinear, a Clip in front where a tensor
has fewer than 8 bits, integer weights as int8. `network.eval()` computes the same codes as the compiled program.
To add: a file with a record of one of these tags.

    network = prepare(model, shape=(1, 3, 32, 32), method="qat/lsq", weight_bits=4, activation_bits=4, calib=x)
    ... any PyTorch loop, or train(network, data, teacher=model) ...
    onnx_model = network.export()
"""
