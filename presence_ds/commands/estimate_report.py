"""An estimate for people."""

from rich.console import Console
from rich.table import Table

from presence_ds.trainer.estimate.estimate import Estimate

GIB = 2**30


def print_estimate(console: Console, estimate: Estimate) -> None:
    """What is computed and at which price, then memory by ZeRO stage."""
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(estimate).items():
        facts.add_row(name, value)
    console.print(facts, highlight=False)
    console.print(_memory(estimate), highlight=False)


def _facts(estimate: Estimate) -> dict[str, str]:
    plan = estimate.plan
    tokens = plan.tokens_per_step * estimate.steps
    at_most = "at most " if plan.padded else ""
    facts = {
        "parameters": f"{estimate.parameters:,}, in {plan.precision}",
        "tokens per step": f"{at_most}{plan.tokens_per_step:,} on {estimate.ranks} ranks",
        "tokens": f"{at_most}{tokens:,} in {estimate.steps:,} steps",
        "scoring adds": "not counted for this kind of model",
    }
    if estimate.model_flops is not None:
        facts["FLOPs of the model"] = (
            f"{estimate.model_flops:.3g} per token, {estimate.model_flops * tokens:.3g} in all"
        )
    if estimate.model_flops is not None and estimate.added_flops is not None:
        facts["scoring adds"] = f"{estimate.added_flops / estimate.model_flops:.1%} to them"
    return facts


def _memory(estimate: Estimate) -> Table:
    table = Table("GiB per rank", title=f"Memory on {estimate.ranks} ranks (*: this recipe's ZeRO stage)")
    for stage in range(4):
        table.add_column(f"ZeRO-{stage}{'*' if stage == estimate.plan.zero_stage else ''}", justify="right")
    states = estimate.states
    rows: dict[str, list[float | None]] = {
        "parameters": [state.parameters for state in states],
        "  gathered, at most": [state.gathered for state in states],
        "gradients": [state.gradients for state in states],
        "optimizer": [state.optimizer for state in states],
        "ZeRO's buffers": [state.buffers for state in states],
        "activations": [estimate.activations] * 4,
        "  more or less with PRESENCE": [estimate.presence] * 4,
    }
    for name, values in rows.items():
        table.add_row(name, *("not counted" if value is None else f"{value / GIB:.2f}" for value in values))
    table.add_section()
    table.add_row("in all", *(f"{estimate.total(stage) / GIB:.2f}" for stage in range(4)), style="bold")
    if any(state.host for state in states):
        table.add_row("in the host's memory", *(f"{state.host / GIB:.2f}" for state in states))
    return table
