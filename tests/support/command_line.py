"""A command that fails, as whoever ran it sees it."""

import pytest

from tabdiff.cli.main import main


def fails(capsys: pytest.CaptureFixture, arguments: list, code: int, *words: str) -> None:
    """Check that a command fails with `code` and with one line on stderr that has all the words."""
    capsys.readouterr()
    try:
        got = main([str(a) for a in arguments])
    except SystemExit as exit_:
        got = exit_.code
    out, err = capsys.readouterr()
    assert got == code
    assert out == ""
    assert err.startswith("tabdiff: error: ") and err.endswith("\n") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err
