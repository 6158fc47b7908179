"""``presence new NAME [--recipe RECIPE] [--slurm]``."""

import re
import shlex
import shutil
import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from presence_ds.errors import ConfigError
from presence_ds.resources import resource

HELP = "Make a folder with a copy of a recipe and what it needs."
DEEPSPEED = re.compile(r"(?:\.\./)*ds_configs/(\w+\.json)")  # where a recipe of the package speaks of one


def make_parser() -> ArgumentParser:
    """What to make out of which recipe."""
    parser = ArgumentParser(exit_on_error=False, description=HELP)
    parser.add_argument("name", type=Path, help="Folder to make, and name of the recipe in it.")
    parser.add_argument("--recipe", default="quickstart", help=f"One of {', '.join(_recipes())}.")
    parser.add_argument(
        "--slurm",
        action="store_true",
        help="With the templates for SLURM, and a site file to be edited: slurm/site.sh.",
    )
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Copy, and say what comes next."""
    if parsed.recipe not in (known := _recipes()):
        raise ConfigError(f"recipe is {parsed.recipe}: it must be one of {', '.join(known)}")
    folder = parsed.name.expanduser()
    recipe = folder / f"{folder.resolve().name}.yaml"
    source = known[parsed.recipe]
    text = source.read_text(encoding="utf-8")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"name is {folder}: it is there already; name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(set(DEEPSPEED.findall(text))):
            shutil.copyfile(resource("ds_configs") / name, folder / name)
        if parsed.slurm:
            _copy_templates(folder / "slurm")
        scripts = [Path(shutil.copy(script, folder)) for script in source.parent.glob("*.sh")]
        recipe.write_text(text, encoding="utf-8")
        for path in (recipe, *scripts):
            path.write_text(_as_it_lies(path.read_text(encoding="utf-8"), parsed.recipe, recipe.name), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"name is {folder}: it cannot be made ({error.strerror})") from None
    print(f"{folder}: recipe {parsed.recipe}, {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if parsed.slurm:
        submit = f"slurm/{parsed.recipe}.sh {recipe.name} FOLDER" if scripts else f"presence slurm {recipe.name}"
        print(f"next: edit {folder / 'slurm' / 'site.sh'}, cd {folder}, {submit}")
    elif scripts:
        print(f"next: {scripts[0]} {recipe} FOLDER")
    else:
        print(f"next: presence train {recipe}")


def _as_it_lies(text: str, recipe: str, name: str) -> str:
    """``text`` of ``recipe`` or its script, with paths as they are in a new folder, where the recipe is ``name``."""
    text = DEEPSPEED.sub(r"\1", text)
    text = re.sub(rf"recipes/(?:\w+/)?{recipe}\.yaml", lambda _: name, text)
    return re.sub(r"recipes/\w+/(\w+\.sh)", r"\1", text)


def _recipes() -> dict[str, Path]:
    """By name; one that takes several commands lies in a folder with the script that runs them."""
    return {path.stem: path for path in sorted(resource("recipes").rglob("*.yaml"), key=lambda path: path.stem)}


def _copy_templates(folder: Path) -> None:
    """All of the package's templates, and a site file that names this Python."""
    folder.mkdir()
    for path in resource("slurm").iterdir():
        if path.suffix in (".sbatch", ".sh") and path.name != "site.sh":
            shutil.copy(path, folder)
    example = (folder / "site.example.sh").read_text(encoding="utf-8")
    python = f"PRESENCE_PYTHON={shlex.quote(sys.executable)}"
    site = re.sub(r"^PRESENCE_PYTHON=.*$", lambda _: python, example, flags=re.MULTILINE)
    (folder / "site.sh").write_text(site, encoding="utf-8")
