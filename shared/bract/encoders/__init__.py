"""Encoders: a public spec becomes a `torch.nn.Module`; its arrays travel by name and digest."""
