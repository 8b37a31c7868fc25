"""Which modules no engine can bound, by their types. Coupling that types do not show is the canary's to find."""

from torch import nn

from bract.errors import NO_CERTIFICATE, BractError


def check_modules(objective: nn.Module) -> None:
    """Refuse modules that mix records, keep state of them, or draw their own randomness.

    Raises:
        BractError: `no-certificate`, naming the module and its class.
    """
    for name, module in objective.named_modules():
        batched = isinstance(module, nn.modules.batchnorm._NormBase)
        drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if batched or drops or isinstance(module, nn.RNNBase | nn.EmbeddingBag):
            raise BractError(NO_CERTIFICATE, f"{name}: {type(module).__name__} has no per-subject gradient")
