"""Update rules of the row-sparse optimizers, one file each, as pure functions of tensors."""
