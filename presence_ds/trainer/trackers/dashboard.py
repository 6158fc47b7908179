"""A wandb workspace and a report, as code: built without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_ds.trainer.trackers.panels import COLUMNS, PANELS, PanelSection, Plot
from presence_ds.trainer.trackers.sections import LOWEST_LOSS, SAMPLES

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import LinePlot, PanelGrid, Report
    from wandb_workspaces.workspaces import Workspace

TITLE = "PRESENCE"
VIEW = "presence"  # name of the workspace in its address, by which it is found again
GROUP = "weights"  # of a run's configuration: seeds of the same weights are a group
UNIFORM = "uniform"  # what it says of a run without weights
WIDTH, HEIGHT = 24 // COLUMNS, 8  # of a panel, in a report


def build_workspace(entity: str, project: str) -> Workspace:
    """Sections of panels; runs are grouped by their weights, each group a mean and a band of a standard deviation."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    sections = [
        ws.Section(name=section.name, panels=[line_plot(plot) for plot in section.plots], is_open=True)
        for section in PANELS
    ]
    table = wr.WeavePanelSummaryTable(table_name=SAMPLES)
    sections.append(ws.Section(name="Samples", panels=[table], is_open=True))
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[expr.Config(GROUP)]),
    )
    workspace._internal_name = f"nw-{VIEW}-v"
    return workspace


def build_report(entity: str, project: str, *, offline: bool = False) -> Report:
    """What the workspace shows, with words; runs with weights and without side by side in the first plots.

    ``offline``: its sets of runs name no project, whose number wandb-workspaces would ask the server for.
    """
    import wandb_workspaces.reports.v2 as wr

    where = {} if offline else {"entity": entity, "project": project}
    blocks: list[Any] = [
        wr.P("Made by presence dashboard, which writes it anew in its place: what is edited here is lost."),
        wr.TableOfContents(),
        wr.H1("With PRESENCE and without"),
        wr.P("Runs with the same weights are a group: the line is the mean over its seeds, the band a deviation."),
        _side_by_side(where),
    ]
    for section in PANELS:
        blocks += [wr.H1(section.name), wr.P(section.text), _grid(where, section)]
    table = wr.WeavePanelSummaryTable(table_name=SAMPLES)
    table.layout = wr.Layout(w=24, h=16)
    blocks += [
        wr.H1("Samples"),
        wr.P("The samples with the highest and the lowest weights of a step (wandb.table_every)."),
        wr.PanelGrid(runsets=[wr.Runset(**where)], panels=[table]),
    ]
    return wr.Report(entity=entity, project=project, title=TITLE, blocks=blocks, width="fluid")


def line_plot(plot: Plot) -> LinePlot:
    """The panel that shows a plot."""
    import wandb_workspaces.reports.v2 as wr

    grouped: dict[str, Any] = {}
    if plot.grouped:
        grouped = {"groupby": wr.Config(GROUP), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    return wr.LinePlot(
        title=plot.title, x=plot.x, y=list(plot.y), metric_regex=plot.pattern, log_y=plot.log_y or None, **grouped
    )


def _side_by_side(where: dict[str, str]) -> PanelGrid:
    """Two sets of runs in the same plots."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    key = expr.Config(f"{GROUP}.value")  # as the server keeps it, which is added in groups alone
    groups = [f"config.{GROUP}"]
    runsets = [
        wr.Runset(name="with PRESENCE", filters=[key != UNIFORM], groupby=groups, **where),
        wr.Runset(name="without", filters=[key == UNIFORM], groupby=groups, **where),
    ]
    best = wr.BarPlot(
        title="lowest validation loss",
        metrics=[LOWEST_LOSS],
        groupby=wr.Config(GROUP),
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
    )
    plots = [line_plot(plot) for plot in PANELS[0].plots[:3]]
    return wr.PanelGrid(runsets=runsets, panels=_placed([*plots, best, wr.RunComparer(diff_only="split")]))


def _grid(where: dict[str, str], section: PanelSection) -> PanelGrid:
    import wandb_workspaces.reports.v2 as wr

    runset = wr.Runset(groupby=[f"config.{GROUP}"], **where)
    return wr.PanelGrid(runsets=[runset], panels=_placed([line_plot(plot) for plot in section.plots]))


def _placed(panels: list[Any]) -> list[Any]:
    """``panels`` in rows of `COLUMNS`."""
    import wandb_workspaces.reports.v2 as wr

    for place, panel in enumerate(panels):
        row, column = divmod(place, COLUMNS)
        panel.layout = wr.Layout(x=column * WIDTH, y=row * HEIGHT, w=WIDTH, h=HEIGHT)
    return panels


def specifications(entity: str, project: str) -> dict[str, Any]:
    """What the server would be given: ``workspace`` and ``report``, as JSON holds them."""
    made: list[Workspace | Report] = [build_workspace(entity, project), build_report(entity, project, offline=True)]
    workspace, report = (one._to_model().model_dump(mode="json", by_alias=True, exclude_none=True) for one in made)
    return {"workspace": workspace, "report": report}
