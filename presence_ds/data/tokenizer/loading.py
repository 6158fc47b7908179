"""Tokenizers that exist."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from presence_ds.data.tokenizer.config import TokenizerConfig
from presence_ds.data.tokenizer.encoding import document_start
from presence_ds.data.tokenizer.own_file import as_in_its_file
from presence_ds.errors import DataError


def load_tokenizer(config: TokenizerConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer that ``config.path`` names.

    Raises:
        DataError: it cannot be loaded, has no EOS token, ``eos_token`` is not in its vocabulary, or ``add_bos`` cannot
            be done.
    """
    assert config.path is not None
    path = Path(config.path).expanduser()
    try:
        if path.is_file():
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
        else:
            name = str(path) if path.is_dir() else config.path
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=config.trust_remote_code)
            tokenizer = as_in_its_file(tokenizer, name)
    except DataError:
        raise
    except Exception as error:  # transformers and tokenizers raise bare Exceptions for files they cannot read
        reason = " ".join(str(error).split())
        raise DataError(f"data.tokenizer.path {config.path} cannot be loaded as a tokenizer: {reason}") from error
    if config.eos_token is not None:
        if config.eos_token not in tokenizer.get_vocab():
            raise DataError(f"data.tokenizer.eos_token {config.eos_token} is not in the vocabulary of {config.path}")
        tokenizer.eos_token = config.eos_token
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"data.tokenizer.path {config.path} has no EOS token: set data.tokenizer.eos_token to one it has"
        )
    if config.add_bos is not None:
        _set_bos(tokenizer, config)
    return tokenizer


def _set_bos(tokenizer: PreTrainedTokenizerBase, config: TokenizerConfig) -> None:
    """Have the template of ``tokenizer`` do what ``config.add_bos`` says, so that it is saved and exported with it."""
    if bool(document_start(tokenizer)) == config.add_bos:
        return
    found = f"data.tokenizer.add_bos is {str(config.add_bos).lower()}, and the tokenizer {config.path}"
    if tokenizer.bos_token_id is None:
        raise DataError(f"{found} has no BOS token: leave it out")
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(f"{found} has a template that only its own code can change: leave it out")
    tokenizer.add_bos_token = config.add_bos
