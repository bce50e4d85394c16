"""Binary and ternary networks: binarizers that are trained.

Belongs here: one file per paper or baseline; each chooses transform, levels, scale and surrogate of
`netsuke.nn.binarizer` and puts them into a network. Does not belong here: the rules themselves (`nn`), the training
loop, kernels.
Methods with the tag "attention" replace attentions and MLPs of a transformer (`_attention`: which modules count as
such) and train beside a float teacher (`_fit`, `distillation` in their files); others replace layers.
Contract: apply(model, config, *, keep=None) -> model replaces convolutions and linear layers of a torch module in
place; `keep` are patterns of layers that stay float (default: first, last, strided 1x1 shortcuts). Train the result
with any loop that calls `netsuke.nn.binary_layers.set_progress` once an epoch, then `freeze` it. Methods with more to
do (regularizers, indicators, stages) have further functions in their file.
To add: a file that ends with a record; the contract tests find it.
"""
