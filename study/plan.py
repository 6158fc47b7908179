"""A plan: the size of runs, and which cells there are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from jsonargparse import ArgumentParser

from presence_ds.errors import ConfigError
from study.arms import ARMS, CLEAN
from study.texts import TEXTS

PLANS = Path(__file__).parent / "plans"


@dataclass(frozen=True)
class Shape:
    """A Llama with tied embeddings; on text with spans cut out an mT5.

    Args:
        width: of the model; the feed-forward width is 8/3 of it.
        layers: number of blocks; half of an mT5's are the encoder's.
        logits: spread of a Llama's first logits: the spread of its first weights is that over the root of the width.
            With weights of 0.02, pairs of runs of small models differ ten times as much by chance.
    """

    width: int
    layers: int
    logits: float = 0.8


@dataclass(frozen=True)
class Contrast:
    """Cells that answer a question: every combination of its lists.

    Args:
        question: for a reader.
        texts: of `study.texts.TEXTS`.
        arms: of `study.arms.ARMS`.
        rates: peak learning rates.
        seeds: of parameters and order; a seed means the same of both in every arm.
        batches: samples of an optimizer step.
        shapes: of `Plan.shapes`.
        steps: optimizer steps, over all of which the rate decays.
    """

    question: str
    texts: list[str]
    arms: list[str]
    rates: list[float]
    seeds: list[int]
    batches: list[int]
    shapes: list[str]
    steps: list[int]


@dataclass(frozen=True)
class Cell:
    """One run. Its fields are the first columns of the row that it ends as."""

    text: str
    arm: str
    rate: float
    seed: int
    batch: int
    shape: str
    steps: int


@dataclass(frozen=True)
class Plan:
    """What a size of the study is made of.

    Args:
        protocol: counted up whenever what runs compute is changed on purpose: rows of another one are not mixed in.
        shapes: of models, by name.
        vocabulary: of the tokenizer, which is trained on the clean text of the mixture alone.
        length: tokens of a sample.
        warmup_steps: optimizer steps while the rate rises.
        evaluations: of a run, how many, evenly over the run; the last is after full decay.
        text_scale: how much text, of the sizes in `study.texts.TEXTS`.
        validation_fraction: of all documents; every evaluation is of all of it, and so is of the same text in all arms.
        contrasts: by name.
        precision: as of ``training.precision``.
        micro_batch: most samples of a micro-batch.
    """

    protocol: int
    shapes: dict[str, Shape]
    vocabulary: int
    length: int
    warmup_steps: int
    evaluations: int
    text_scale: float
    validation_fraction: float
    contrasts: dict[str, Contrast] = field(default_factory=dict)
    precision: str = "fp32"
    micro_batch: int = 64

    def cells(self, contrast: str | None = None) -> list[Cell]:
        """Of one contrast or of all, each once, seed by seed, so that what a part of a study knows is balanced."""
        names = self.contrasts if contrast is None else [contrast]
        found = dict.fromkeys(cell for name in names for cell in _cells(self.contrasts[name]))
        return sorted(found, key=lambda cell: cell.seed)  # stable: within a seed as the plan says


def _cells(contrast: Contrast) -> Iterator[Cell]:
    lists = (
        contrast.seeds,
        contrast.shapes,
        contrast.steps,
        contrast.batches,
        contrast.texts,
        contrast.rates,
        contrast.arms,
    )
    for seed, shape, steps, batch, text, rate, arm in product(*lists):
        yield Cell(text, arm, rate, seed, batch, shape, steps)


def read_plan(name: str) -> Plan:
    """The plan ``plans/NAME.yaml``, or the file ``name``.

    Raises:
        ConfigError: there is none, or it names an arm, a text or a shape that there is not, or an arm without effect.
    """
    file = PLANS / f"{name}.yaml" if not name.endswith(".yaml") else Path(name)
    if not file.is_file():
        raise ConfigError(
            f"{file} is no plan: give {', '.join(sorted(p.stem for p in PLANS.glob('*.yaml')))}, or a file"
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Plan, None)
    plan = Plan(**parser.instantiate_classes(parser.parse_path(file)).as_dict())
    for name, contrast in plan.contrasts.items():
        for field_name, known in (("texts", TEXTS), ("arms", ARMS), ("shapes", plan.shapes)):
            for value in getattr(contrast, field_name):
                if value not in known:
                    raise ConfigError(
                        f"{file}: contrasts.{name}.{field_name} has {value!r}: it must be one of {', '.join(known)}"
                    )
        for text in contrast.texts:
            if CLEAN in contrast.arms and not TEXTS[text].noise:
                raise ConfigError(
                    f"{file}: contrasts.{name} has arm {CLEAN} and text {text}, which has no noise to leave out: use "
                    f"texts with noise, or leave the arm out"
                )
    return plan
