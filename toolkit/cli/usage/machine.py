"""Options of the commands about this machine and the command line itself."""

from toolkit.cli.usage.command import Commands, add_command


def _doctor(commands: Commands) -> None:
    add_command(commands, "doctor", "tell what is installed, which engines answer, and what is missing")


def _completion(commands: Commands) -> None:
    parser = add_command(commands, "completion", "print a script that completes commands in a shell", json=False)
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")


#: In the order of the page of help.
COMMANDS = (_doctor, _completion)
