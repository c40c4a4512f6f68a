"""The script that completes commands in a shell, tried in one."""

import shutil
import subprocess

import pytest

from toolkit.cli import commands
from toolkit.cli.parser import build_parser


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [("toolkit fine", "finetune"), ("toolkit finetune --bal", "--balanced"), ("toolkit cache pr", "prune")],
)
def test_bash_completes_commands_and_options(line, expected, capsys, tmp_path):
    commands.completion(build_parser().parse_args(["completion", "bash"]))
    (tmp_path / "toolkit.sh").write_text(capsys.readouterr().out)
    words = line.split()
    # What bash does when the tab key is pressed, with the function that is registered for the command.
    script = f"""
        source {tmp_path}/toolkit.sh
        COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{line}"; COMP_POINT={len(line)}
        _shtab_toolkit toolkit "{words[-1]}" "{words[-2]}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert expected in [word.strip() for word in done.stdout.splitlines()]
