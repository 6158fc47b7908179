"""A trial run at start-up finds what would spoil training or scores in silence, before any training step."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from presence_ds.capture import check_attribution
from presence_ds.engine.batch import is_encoder_decoder, vocabulary_size
from presence_ds.engine.causality import check_causality
from presence_ds.engine.modes import modes_restored
from presence_ds.engine.random_states import at_random_states, random_states
from presence_ds.engine.strategies.strategy import Strategy

SAMPLES, POSITIONS = 3, 7


class Engine(Protocol):
    """What runs a model: DeepSpeed's engine with PRESENCE, or one that only scores."""

    module: nn.Module

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    def __call__(self, **inputs: Any) -> Any:
        """The model's output."""

    def forward_as(self, substitute: Callable[..., Any], **batch: Any) -> Any:
        """``substitute(the model's forward, ...)`` in the place of the model's forward."""

    def train(self, mode: bool = True) -> Any:
        """Put the model into training mode, or into evaluation mode."""

    def eval(self) -> Any:
        """Put the model into evaluation mode."""


def try_out(engine: Engine, strategy: Strategy) -> None:
    """Run and score the model on a few random tokens.

    It tells whether the model sees what it is to predict, which terms of its own it adds to the loss, and what cannot
    be attributed to samples and has to be left out of the scores. A model without an embedding to take the size of the
    vocabulary from is not tried.

    Raises:
        ConfigError: the model is not causal, or its loss is none that can be weighted.
        AttributionError: there is a module that nothing attributes, and strategy one_pass cannot train it.
    """
    vocabulary = vocabulary_size(engine.module)
    if vocabulary is None:
        return
    encoder_decoder = is_encoder_decoder(engine.module)
    ids = torch.randint(vocabulary, (SAMPLES, POSITIONS), generator=torch.Generator().manual_seed(0)).to(engine.device)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if encoder_decoder else {})
    before = random_states()

    @torch.no_grad()
    def run(**inputs: Any) -> Any:
        with at_random_states(before):
            return engine(**inputs)

    with modes_restored(engine):
        engine.train()
        strategy.objective.look_for_terms(run, inputs)
        engine.eval()  # no dropout, and no activation checkpointing, which can hide uses of a parameter
        check_causality(run, engine.module, vocabulary, engine.device, encoder_decoder=encoder_decoder)
        if (scorer := strategy.scorer) is not None:
            names = scorer.instrumentation.names
            scorer.leave_out(
                check_attribution(engine, names, vocabulary, engine.device, encoder_decoder=encoder_decoder)
            )
            engine.forward_as(lambda inner, **batch: scorer.score(inner, (), batch).losses.sum(), **inputs, labels=ids)
