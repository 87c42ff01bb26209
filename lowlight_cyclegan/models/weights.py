"""Weights that a network starts from, and those that it keeps."""
import torch
from basicsr.utils import get_root_logger

__all__ = ['fix_parameters', 'load_weights', 'read_weights']


def read_weights(path, param_key):
    """State dict of a file that BasicSR saves, or of a ``.safetensors`` file.

    Args:
        path (str): The file.
        param_key (str | None): Entry of BasicSR's file, where it is missing 'params'; None for a plain state dict.

    Returns:
        dict[str, Tensor]: On the CPU, without the ``module.`` of parallel runs.

    Raises:
        ValueError: The file cannot be read, has no such entry, or that holds something else than weights.
    """
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file
            param_key, state = None, load_file(path)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # both answer a broken file with many kinds
        raise ValueError(f'{path}: cannot be read as weights ({_first_line(error)})') from error
    if not isinstance(state, dict):
        raise ValueError(f'{path}: holds no weights but {type(state).__name__}')
    if param_key is not None:
        found = next((key for key in (param_key, 'params') if key in state), None)
        if found is None:
            raise ValueError(f'{path}: has no entry {param_key!r}; it holds {", ".join(map(str, list(state)[:5]))}')
        param_key, state = found, state[found]
    where = f'{path}: the entry {param_key!r}' if param_key else f'{path}:'
    if not isinstance(state, dict):
        raise ValueError(f'{where} holds no weights but {type(state).__name__}')
    for key, value in state.items():
        if not isinstance(key, str) or not _is_plain_tensor(value):
            raise ValueError(f'{where} holds no weights under {key!r} but {_kind(value)}')
    get_root_logger().info(f'Loading {path}' + (f', entry {param_key}.' if param_key else '.'))
    return {key.removeprefix('module.'): value for key, value in state.items()}


def load_weights(net, path, param_key, strict):
    """Load :func:`read_weights` into a network.

    Args:
        net (nn.Module): The network, without wrappers.
        path (str): The file.
        param_key (str | None): Its entry.
        strict (bool): Whether all names and shapes must fit; else those that do not are left out, with a warning.

    Raises:
        ValueError: The file cannot be read, or its weights do not fit.
    """
    state = read_weights(path, param_key)
    own = net.state_dict()
    if not strict:
        left_out = [key for key in state if key not in own or own[key].shape != state[key].shape]
        missing = own.keys() - (state.keys() - set(left_out))
        for key in left_out:
            del state[key]
        for keys, said in ((left_out, 'do not fit and are left out'), (sorted(missing), 'are not there')):
            if keys:
                get_root_logger().warning(f'{path}: {len(keys)} weights {said}: {", ".join(keys[:5])}'
                                          f'{", ..." if len(keys) > 5 else ""}')
    try:
        net.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        reason = '; '.join(line.strip() for line in str(error).splitlines()[1:3])[:300]
        raise ValueError(f'{path}: does not fit {type(net).__name__} ({reason})') from error


def fix_parameters(net, name, prefixes):
    """Leave the parameters out of the training whose names begin with one of the prefixes.

    Args:
        net (nn.Module): The network.
        name (str): Its name without ``network_``, for messages.
        prefixes (list[str]): Option ``fixed_<name>`` of the section train.

    Raises:
        ValueError: No parameter's name begins so.
    """
    for prefix in prefixes:
        parameters = [p for key, p in net.named_parameters() if key.startswith(prefix)]
        if not parameters:
            raise ValueError(f'train: fixed_{name}: no parameter of network_{name} begins with {prefix!r}.')
        for parameter in parameters:
            parameter.requires_grad_(False)


def _is_plain_tensor(value):
    return (isinstance(value, torch.Tensor) and value.layout == torch.strided
            and not (value.is_quantized or value.is_meta or value.is_complex()))


def _kind(value):
    return f'a tensor of {value.dtype} ({value.layout}, {value.device})' if isinstance(value, torch.Tensor) \
        else type(value).__name__


def _first_line(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
