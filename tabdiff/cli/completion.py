"""Completion of commands and options in bash, zsh and fish."""

from __future__ import annotations

import argparse

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")


def _commands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, list[str]]]:
    """Help and long options of each command."""
    found: dict[str, tuple[str, list[str]]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                options = [o for a in command._actions for o in a.option_strings if o.startswith("--")]
                found[name] = (texts.get(name, ""), sorted(options))
    return found


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return what a shell sources to complete ``tabdiff``.

    Parameters
    ----------
    parser : ArgumentParser
        Of the whole command line.
    shell : {"bash", "zsh", "fish"}
    """
    commands = _commands(parser)
    if shell == "fish":
        lines = ["complete -c tabdiff -n __fish_use_subcommand -f"]
        for name, (text, options) in commands.items():
            quoted = text.replace("'", "\\'")
            lines.append(f"complete -c tabdiff -n __fish_use_subcommand -a {name} -d '{quoted}'")
            seen = f"-n '__fish_seen_subcommand_from {name}'"
            lines += [f"complete -c tabdiff {seen} -l {option[2:]}" for option in options]
        return "\n".join(lines) + "\n"
    cases = "\n".join(f"    {name}) words='{' '.join(options)}' ;;" for name, (_, options) in commands.items())
    return (
        ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "")
        + "_tabdiff() {\n"
        + '  local now="${COMP_WORDS[COMP_CWORD]}" words=""\n'
        + '  case "${COMP_WORDS[1]}" in\n'
        + cases
        + "\n  esac\n"
        + f'  if [ "$COMP_CWORD" -eq 1 ]; then words="{" ".join(commands)} --help --version"; fi\n'
        + '  COMPREPLY=( $(compgen -W "$words" -- "$now") )\n'
        + "}\n"
        + "complete -o default -F _tabdiff tabdiff\n"
    )
