"""MACs, bytes and operators, counted on meta tensors."""
