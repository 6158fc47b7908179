"""What becomes of a setting that is another one when a checkpoint is loaded: applied, refused by name, or of no effect.

A table has a rule for every field. Two sets of plain values, the checkpoint's and the present ones, are compared by it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from presence_ds.engine.config import PresenceConfig
from presence_ds.errors import ConfigError

LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True)
class Rule:
    """What a change of a field leads to.

    Attributes:
        effect: applied, from the next step on; refused; or none.
        why: what there is to say about it.
        where: names of `CONDITIONS`. A field that is refused only where one of them holds is applied elsewhere. Empty:
            everywhere.
    """

    effect: Literal["applied", "refused", "none"]
    why: str = ""
    where: tuple[str, ...] = ()


Table = Sequence[tuple[str, Rule]]  # names of fields, with spaces between them, and their rule

CONDITIONS = {  # by values of the section presence, ``statistics`` being what it comes to
    "running statistics": lambda presence: presence.get("statistics") == "running",
    "a reference": lambda presence: (
        presence.get("signal") == "alignment" or presence.get("alignment_with") == "reference"
    ),
    "schedule auto": lambda presence: presence.get("schedule", {}).get("kind") == "auto",
}

PRESENCE: Table = [
    (
        "preset signal normalizer weighting.kind weighting.features alignment_with statistics",
        Rule("applied", "what was learned with another signal, normalizer or weight function is learned anew"),
    ),
    (
        "strategy weighting.threshold weighting.placebo min_effective_share damping near_duplicates "
        "alignment reference_decay kernels",
        Rule("applied"),
    ),
    (
        "schedule.kind schedule.tau_direct schedule.tau_inverse schedule.training_steps",
        Rule("applied", "auto begins to watch the loss anew after another kind"),
    ),
    (
        "schedule.switch_step schedule.switch_fraction schedule.slowdown_share schedule.slowdown_window "
        "schedule.earliest_step",
        Rule("refused", "the loss has been watched with it, and may have decided", ("schedule auto",)),
    ),
    (
        "layers loss_normalizer granularity",
        Rule("refused", "what is kept of earlier steps is in its unit", ("running statistics", "a reference")),
    ),
    ("weighting.quantile", Rule("refused", "what is kept of earlier steps is at it", ("running statistics",))),
    (
        "estimator projection_dim alignment_dim seed",
        Rule("refused", "the reference gradient is projected with it", ("a reference",)),
    ),
]


@dataclass(frozen=True)
class Change:
    """A field that is not what it was.

    Attributes:
        field: its whole name.
        before: value that the checkpoint was written with.
        now: present value.
        rule: what comes of it.
    """

    field: str
    before: Any
    now: Any
    rule: Rule

    def __str__(self) -> str:
        effect = f" (of no effect: {self.rule.why})" if self.rule.effect == "none" else ""
        return f"{self.field}: {_shown(self.before)} -> {_shown(self.now)}{effect}"


def rules(table: Table) -> dict[str, Rule]:
    """The rule of every field of ``table``."""
    return {name: rule for names, rule in table for name in names.split()}


def changes(
    table: Table,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    section: str = "",
    presence: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> list[Change]:
    """What is another value in ``now`` than in ``before``; fields that only one of them knows are left out.

    Args:
        before, now: plain values, nested as the fields are.
        section: put before every field's name.
        presence: values of the section presence before and now, which conditions are about. None: they are those given.
    """
    known = rules(table)
    return [
        Change(section + name, old, new, _in_force(_rule(known, name), *(presence or (before, now))))
        for name, old, new in _differences(before, now, "")
    ]


def refuse(found: Sequence[Change], checkpoint: str, remedy: str) -> None:
    """Raise `ConfigError` for the first of ``found`` that is refused.

    Args:
        checkpoint: what was written with the values of before.
        remedy: what can be done but setting the field back.
    """
    for change in found:
        if change.rule.effect == "refused":
            where = " or ".join(change.rule.where)
            raise ConfigError(
                f"{change.field} is {_shown(change.now)}, and {checkpoint} was written with {_shown(change.before)}: "
                f"it cannot change{' with ' + where if where else ''}, as {change.rule.why}; set it back, or {remedy}"
            )


def plain_values(config: PresenceConfig, *, running: bool) -> dict[str, Any]:
    """A configuration as values that JSON holds; ``running``: whether ``statistics`` comes to that.

    ``weighting.kind`` is what it comes to, too, so that a preset that is not stated has nothing to say beside it.
    """
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    values["weighting"]["kind"] = config.weighting_kind
    if config.preset is None:
        del values["preset"]
    return values | {"statistics": "running" if running else "batch"}


def _differences(before: Any, now: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in before:
            if key in now:
                yield from _differences(before[key], now[key], f"{name}.{key}" if name else key)
    elif (
        isinstance(before, list)
        and isinstance(now, list)
        and len(before) == len(now)
        and all(isinstance(item, Mapping) for item in (*before, *now))
    ):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(old, new, f"{name}[{index}]")
    elif before != now:
        yield name, before, now


def _rule(known: Mapping[str, Rule], field: str) -> Rule:
    """The rule of a field; of one inside it, where it is a mapping; of a whole section, the strictest of its fields."""
    name = re.sub(r"\[\d+\]", "[]", field)
    inside = [rule for other, rule in known.items() if other.startswith((name + ".", name + "["))]
    if inside:
        return next((rule for rule in inside if rule.effect == "refused"), inside[0])
    while name not in known:
        name = name[: name.rindex(".")]
    return known[name]


def _in_force(rule: Rule, before: Mapping[str, Any], now: Mapping[str, Any]) -> Rule:
    """``rule``, or that the field is applied where none of its conditions holds; each has to hold then and now."""
    held = tuple(name for name in rule.where if CONDITIONS[name]({**now, **before}) and CONDITIONS[name](now))
    if not rule.where:
        return rule
    return Rule(rule.effect, rule.why, held) if held else Rule("applied")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
