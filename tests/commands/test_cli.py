"""Every command is found by its name and explains itself."""

import pytest

from presence_ds import cli


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, command in cli.COMMANDS.items():
        assert f"{name} {command.HELP}" in text


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_a_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert cli.COMMANDS[name].HELP in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [[], ["trian"]])
def test_an_unknown_command_is_refused_with_those_there_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(name in error for name in cli.COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [["train", "--training.step", "3"], ["prepare", "out", "--overwrit"], ["export", "run", "out", "--dtyp", "fp32"]],
)
def test_an_option_is_not_guessed_from_its_beginning(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Which option --training.step means may change with the next field that begins so."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert arguments[-1] in error or arguments[-2] in error
    assert error.count("\n") == 1
