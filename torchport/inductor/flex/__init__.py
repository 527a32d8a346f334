"""FlexAttention (``torch.nn.attention.flex_attention``) in compiled graphs; see docs/attention-flex.md."""
