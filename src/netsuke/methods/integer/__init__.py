"""Training in integers: rules for the three products of a layer, and what surrounds them.

Belongs here: how gradients, weights and activations become integers while a network trains, and controllers that change
widths on the way; bfloat16 operands too, by the same contract. Does not belong here: the layers and their autograd
functions (`nn.integer_train`, `nn.bfloat16`), kernels, loops.
Contract, tag "train": apply(model, config) -> model, in place; the result trains with any torch optimizer, keeps its
parameters, names and state dict keys, and refuses layers it cannot take, all at once. Controllers that change widths on
the way (`adapt`) live in buffers of the layers, so that any loop drives them and any checkpoint holds them.
To add: a file with a record of that tag; its test in tests/methods/integer; a row in the ledger.
"""
