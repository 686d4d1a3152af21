"""A finding refuses the certificate."""

from __future__ import annotations

from lamassu.kernel.errors import RuleViolation, Unavailable

LINT_FAILED = "lint_failed"


class LintRefusal(RuleViolation):
    """What was asked for, or a profile, or an issuer makes a certificate that breaks `rule`."""

    def __init__(self, rule: str, text: str, *, section: str, part: str) -> None:
        super().__init__(_worded(rule, text, section), code=LINT_FAILED, field=part)
        self.rule = rule


class PlatformLintRefusal(Unavailable):
    """The same where nobody but the platform wrote what is wrong: a fault of ours, for which
    no client can do anything. Nothing was signed."""

    def __init__(self, rule: str, text: str, *, section: str, part: str) -> None:
        super().__init__(
            f"{_worded(rule, text, section)}; this is a fault of the platform: tell its operator",
            code=LINT_FAILED,
            field=part,
        )
        self.rule = rule


def _worded(rule: str, text: str, section: str) -> str:
    return f"the certificate was not signed: {text} ({rule}, {section})"


def breach(rule: str, text: str, *, section: str, part: str) -> LintRefusal:
    """A finding that a request, a profile or an issuer can cause. `section` is of RFC 5280
    unless it names another; `part` is the certificate's."""
    return LintRefusal(rule, text, section=_section(section), part=part)


def fault(rule: str, text: str, *, section: str, part: str) -> PlatformLintRefusal:
    """A finding that only the platform's own code can cause."""
    return PlatformLintRefusal(rule, text, section=_section(section), part=part)


def _section(section: str) -> str:
    return section if section.startswith(("RFC", "X.")) else f"RFC 5280 §{section}"
