"""The matrix of what was tried and what held, printed at the end."""

from typing import Any

_LINE = "{:<24}{:<11}{:<8}{:<6}{:>10}{:>10}{:>8}{:>9}".format


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was tried and what held."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, ())]
    tried = [told for told in (dict(one.user_properties) for one in reports if one.when == "call") if "fault" in told]
    if not tried:
        return
    outcomes = [dict(one.user_properties) for one in terminalreporter.stats.get("passed", ())]
    held = [told["tried"] for told in outcomes if "tried" in told]
    late = sum(not one["hit"] for one in held)
    terminalreporter.section(f"faults: {len(held)} of {len(tried)} held, {late} of them struck too late")
    terminalreporter.write_line(_LINE("fault", "phase", "wanted", "held", "recovered", "campaign", "redone", "without"))
    for told in tried:
        terminalreporter.write_line(_LINE(*told["fault"], *_outcome(told.get("tried"))))


def _outcome(one: dict[str, Any] | None) -> tuple[object, ...]:
    """`late`: it held, but the phase was over when the fault struck."""
    if one is None:
        return ("NO", "", "", "", "")
    seconds = (f"{one[name]:.1f} s" for name in ("recovered_s", "campaign_s"))
    return ("yes" if one["hit"] else "late", *seconds, one["redone"], one["without"])
