"""Sends the workspace and the report to wandb, in the place of those that are there."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from presence_ds.errors import ConfigError
from presence_ds.trainer.trackers.dashboard import TITLE, VIEW, build_report, build_workspace
from presence_ds.trainer.trackers.wandb_access import answers, has_key, server

TIMEOUT = 30  # seconds, of a request


def save(entity: str | None, project: str) -> dict[str, str]:
    """Send both; their addresses by name.

    Whether they are there the server tells: the workspace has a name of its own (`VIEW`), and the report is the one of
    the project with the title `TITLE`.

    Args:
        entity: user or team; None is the key's default.

    Raises:
        ConfigError: there is no key, no answer, or one that refuses.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # it is said here what there is to say
    try:
        known, url = has_key(), server()
    except Exception as error:  # wandb's own, of a key or an address that is none
        raise ConfigError(f"wandb cannot be set up: {' '.join(str(error).split())}") from None
    if not known:
        raise ConfigError("wandb has no key: run `wandb login`, or set WANDB_API_KEY; --file FILE needs none")
    if not answers(url):
        raise ConfigError(f"{url} does not answer: use --save where there is a network; --file FILE needs none")
    import wandb

    try:
        api = wandb.Api(timeout=TIMEOUT)
        owner = entity or api.default_entity
        if not owner:
            raise ConfigError("give --entity: the key of wandb has no default")
        report, workspace = build_report(owner, project), build_workspace(owner, project)
        report.id = _known_report(api, owner, project)
        report.save()
        workspace._internal_id = _known_workspace(owner, project)
        workspace.save()
        return {"workspace": workspace.url, "report": report.url}
    except ConfigError:
        raise
    except Exception as error:  # of wandb's there are many kinds
        raise ConfigError(f"{url} does not take the dashboard: {' '.join(str(error).split()) or error!r}") from None


def _known_report(api: Any, owner: str, project: str) -> str:
    """The id of the report; empty if there is none."""
    found = (known.id for known in api.reports(f"{owner}/{project}") if known.display_name == TITLE)
    return next(found, "")


def _known_workspace(owner: str, project: str) -> str:
    """The id of the workspace; empty if there is none."""
    from wandb_workspaces.workspaces import Workspace

    with suppress(ValueError):  # there is no view of the name
        return str(Workspace.from_url(f"https://wandb.ai/{owner}/{project}?nw={VIEW}")._internal_id)
    return ""
