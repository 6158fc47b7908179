"""The ``model`` section of a recipe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from presence_ds.errors import ConfigError


@dataclass
class ModelConfig:
    """A causal or encoder-decoder language model of `transformers`. Give config or path, not both.

    Args:
        config: A `transformers` configuration: model_type (llama, gpt2, mt5, ...) and that type's own fields. The model
            starts from random weights. vocab_size may be left out: it is then the tokenizer's size, rounded up to a
            multiple of 64; the special token ids are the tokenizer's unless given, and a decoder starts with padding.
        path: A local directory, or a name on the Hugging Face hub.
        from_scratch: With path: take the configuration only and start from random weights.
        differing_weights: Patterns of names, such as lm_head.*, in which the weights at path may differ from the
            model: what they do not have is drawn at random, and what is not the model's is left out.
        trust_remote_code: Let Python code that comes with the model run on this machine.
        attention: Attention implementation: eager, sdpa, or on a GPU flash_attention_2 (needs package flash-attn, and
            bf16 or fp16), flex_attention and what else `transformers` knows. null: what `transformers` chooses.
        activation_checkpointing: Compute the activations of every block again in the backward pass instead of keeping
            them; needs presence.strategy two_pass.
        compile: Run the passes that are ordinary forwards through torch.compile: the weighted pass of presence.strategy
            two_pass, or all of presence.signal loss; ZeRO 0 to 2. A name, such as aot_eager, is another backend than
            inductor.
    """

    config: dict[str, Any] | None = None
    path: str | None = None
    from_scratch: bool = False
    differing_weights: list[str] = field(default_factory=list)
    trust_remote_code: bool = False
    attention: str | None = None
    activation_checkpointing: bool = False
    compile: bool | str = False

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if (self.config is None) == (self.path is None):
            state = "neither is set" if self.config is None else "both are set"
            raise ConfigError(f"{field}.config and {field}.path: {state}; give exactly one of them")
        if self.path is not None and self.path.startswith(("/", ".", "~")) and not Path(self.source).is_dir():
            raise ConfigError(f"{field}.path is {self.path}: there is no such directory")
        if self.differing_weights and not self.is_pretrained:
            raise ConfigError(
                f"{field}.differing_weights is {self.differing_weights}, and no weights are loaded: it must be left out"
            )
        if isinstance(self.compile, str):
            from torch.compiler import list_backends  # only torch knows them

            if self.compile not in (known := list_backends(exclude_tags=())):
                raise ConfigError(
                    f'{field}.compile is "{self.compile}": it must be true, false or one of {", ".join(known)}'
                )

    @property
    def is_pretrained(self) -> bool:
        """Whether the model starts from weights that exist."""
        return self.path is not None and not self.from_scratch

    @property
    def source(self) -> str:
        """``path``, of which transformers would take a ~ for the name of a folder."""
        assert self.path is not None
        return str(Path(self.path).expanduser()) if self.path.startswith("~") else self.path

    @property
    def compile_backend(self) -> str | None:
        """Backend of torch.compile; None if nothing is compiled."""
        return ("inductor" if self.compile else None) if isinstance(self.compile, bool) else self.compile
