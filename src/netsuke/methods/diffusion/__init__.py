"""Quantizing networks that are run again and again on their own output: image generators that sample in steps.

Belongs here: methods that use the sampling run itself as calibration data, as training data, or as what is measured.
Does not belong here: the sampler (`netsuke.nn.diffusion`), networks (`netsuke.models`), what works on any network.
Contract: `apply(model, sampling, config) -> Tuned` (in `_tuned`). model is a float denoiser in eval mode, a module of
(image, time, label); sampling says from what and in how many steps images are made; nothing else is read, no data. The
result samples like the float network and exports one graph per step, or one for all. To add: a file with a record; its
test in tests/methods/diffusion.
"""
